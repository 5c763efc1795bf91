"""BBSE: how much more frequent each class is in the target, from a source classifier's predictions."""

from __future__ import annotations

import torch
from torch import Tensor

LARGEST = 10.0
"""Largest weight: a class that source validation hardly knows must not decide the training."""


def confusion(predicted: Tensor, y: Tensor, classes: int) -> Tensor:
    """Joint shares ``C[i, j] = p(predicted i, label j)`` over source validation: ``(K, K)``, sum 1."""
    counts = torch.bincount(predicted * classes + y, minlength=classes**2)
    return counts.reshape(classes, classes).double() / max(1, len(y))


def label_weights(joint: Tensor, predicted: Tensor) -> Tensor:
    """``w[j] = p_target(j) / p_source(j)``, the solution of ``C w = μ`` (Lipton et al. 2018, arXiv:1802.03916, eq. 4).

    Negative weights become 0 and large ones :data:`LARGEST`; then the weights are scaled so that their mean under the
    source's labels is 1.

    Args:
        joint: what :func:`confusion` gives.
        predicted: shares ``μ (K,)`` of the classes among the target's predictions.

    Returns:
        ``(K,)`` float64; ones where the predictions of no class can be told apart.
    """
    solved = torch.linalg.lstsq(joint, predicted.double().unsqueeze(1), driver="gelsd").solution.squeeze(1)
    weights = solved.clamp(0, LARGEST)
    mean = (weights * joint.sum(0)).sum()
    return weights / mean if mean > 0 else torch.ones_like(weights)
