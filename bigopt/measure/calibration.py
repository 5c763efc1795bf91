"""Whether a classifier is as sure as it is right."""

from __future__ import annotations

import torch
from torch import Tensor


def expected_calibration_error(logits: Tensor, y: Tensor, bins: int = 15) -> float:
    """Mean distance between confidence and accuracy over equally wide bins (Guo et al. 2017, arXiv:1706.04599).

    Args:
        logits: ``(N, K)``.
        y: labels ``(N,)``.
        bins: number of bins of confidence; each takes its upper bound in.

    Returns:
        ``Σ |bin| / N · |accuracy(bin) − confidence(bin)|``.
    """
    confidence, predicted = logits.double().softmax(1).max(1)
    place = (confidence * bins).ceil().long().clamp(1, bins) - 1
    hit = (predicted == y).double()
    gap = torch.zeros(bins, dtype=torch.float64).index_add_(0, place, hit - confidence)
    return gap.abs().sum().item() / len(y)


def class_accuracies(logits: Tensor, y: Tensor) -> dict[int, float]:
    """Accuracy within each class that occurs in the labels, by class."""
    hit = (logits.argmax(1) == y).double()
    return {int(label): hit[y == label].mean().item() for label in y.unique()}
