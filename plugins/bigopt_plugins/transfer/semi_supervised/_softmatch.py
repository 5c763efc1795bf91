"""SoftMatch."""

from __future__ import annotations

import torch
from torch import Tensor

from bigopt_plugins.transfer.semi_supervised._method import Method, weighted_cross_entropy


class SoftMatch(Method):
    """Every answer counts, by a truncated Gaussian of its confidence (Chen et al. 2023, arXiv:2301.10921).

    ``w(q) = exp(-(max q - μ)² / (2 σ²))`` below μ and 1 above (eq. 5); μ and σ² are moving averages of the mean and the
    unbiased variance of max q, from 1/K and 1 (eq. 6 and 7). Weights use q after uniform alignment,
    ``Normalize(q · (1/K) / mean q)`` with a moving average of the mean (eq. 8); labels do not.

    Args:
        weight: λ_max.
        momentum: of the moving averages; the paper takes 0.999 for a million steps.
        classes: number of classes K.
    """

    mu: Tensor
    variance: Tensor
    mean: Tensor

    def __init__(self, weight: float, momentum: float, classes: int) -> None:
        super().__init__()
        self.weight = weight
        self.momentum = momentum
        self.register_buffer("mu", torch.tensor(1 / classes))
        self.register_buffer("variance", torch.tensor(1.0))
        self.register_buffer("mean", torch.full((classes,), 1 / classes))

    def forward(self, answers: Tensor, logits: Tensor, index: Tensor) -> dict[str, Tensor]:
        """The term ``softmatch``, with averages that have taken these answers in."""
        probabilities = answers.softmax(1)
        labels = probabilities.argmax(1)
        step = 1 - self.momentum
        self.mean.lerp_(probabilities.mean(0), step)
        aligned = probabilities / (self.mean * len(self.mean))
        confidence = (aligned / aligned.sum(1, keepdim=True)).amax(1)
        self.mu.lerp_(confidence.mean(), step)
        if len(confidence) > 1:
            self.variance.lerp_(confidence.var(), step)
        return {"softmatch": self.weight * weighted_cross_entropy(logits, labels, self.weights(confidence))}

    def weights(self, confidence: Tensor) -> Tensor:
        """Weight ``(M,)`` in (0, 1] of rows with these largest probabilities."""
        short = (self.mu - confidence).clamp(min=0)
        return torch.exp(-short.square() / (2 * self.variance))
