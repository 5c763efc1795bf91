"""FreeMatch."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from bigopt_plugins.transfer.semi_supervised._method import Method, weighted_cross_entropy


class FreeMatch(Method):
    """Thresholds that follow the model's confidence, and fair classes (Wang et al. 2023, arXiv:2205.07246).

    With q the weak view's probabilities and λ the momentum: ``τ ← λ τ + (1 - λ) mean max q`` (eq. 5),
    ``p̃(c) ← λ p̃(c) + (1 - λ) mean q(c)`` (eq. 6), both from 1/K; the class's threshold is ``p̃(c) / max p̃ · τ`` (eq. 7).
    Fairness (eq. 9 to 11) compares with the masked rows' strong view Q:
    ``-H(SumNorm(p̃ / h̃), SumNorm(p̄ / h̄))``, p̄ the mean of Q, h̄ and h̃ the histogram of its answers and the moving
    average of the weak answers' histogram. The term is negative and, as published, larger in size the less the two
    agree, so its weight should stay small.

    Args:
        weight: w_u of the pseudo-labels' term.
        fairness: w_f of the fairness term; 0 leaves it out.
        momentum: λ; the paper takes 0.999 for a million steps.
        classes: number of classes K.
    """

    confidence: Tensor
    mean: Tensor
    histogram: Tensor

    def __init__(self, weight: float, fairness: float, momentum: float, classes: int) -> None:
        super().__init__()
        self.weight = weight
        self.fairness = fairness
        self.momentum = momentum
        self.classes = classes
        self.register_buffer("confidence", torch.tensor(1 / classes))
        self.register_buffer("mean", torch.full((classes,), 1 / classes))
        self.register_buffer("histogram", torch.full((classes,), 1 / classes))

    def thresholds(self) -> Tensor:
        """Threshold of each class ``(K,)``."""
        return self.mean / self.mean.max() * self.confidence

    def forward(self, answers: Tensor, logits: Tensor, index: Tensor) -> dict[str, Tensor]:
        """The terms ``freematch`` and ``fairness``, with thresholds that have taken these answers in."""
        probabilities = answers.softmax(1)
        confidence, labels = probabilities.max(1)
        step = 1 - self.momentum
        self.confidence.lerp_(confidence.mean(), step)
        self.mean.lerp_(probabilities.mean(0), step)
        self.histogram.lerp_(self._shares(labels), step)
        chosen = confidence >= self.thresholds()[labels]
        terms = {"freematch": self.weight * weighted_cross_entropy(logits, labels, chosen.to(logits.dtype))}
        if self.fairness:
            terms["fairness"] = self.fairness * self._fairness(logits, chosen)
        return terms

    def _fairness(self, logits: Tensor, chosen: Tensor) -> Tensor:
        """``-H(SumNorm(p̃ / h̃), SumNorm(p̄ / h̄))``; 0 where no row is confident."""
        if not bool(chosen.any()):
            return logits.sum() * 0
        strong = logits[chosen].softmax(1)
        wanted = _sum_norm(_over(self.mean, self.histogram))
        found = _sum_norm(_over(strong.mean(0), self._shares(strong.argmax(1))))
        return (wanted * (found + 1e-12).log()).sum()

    def _shares(self, labels: Tensor) -> Tensor:
        """Share of each class ``(K,)`` among labels."""
        return functional.one_hot(labels, self.classes).float().mean(0)


def _over(values: Tensor, counts: Tensor) -> Tensor:
    """``values / counts``, 0 for a class that does not occur."""
    return torch.where(counts > 0, values / counts.clamp(min=1e-12), torch.zeros_like(values))


def _sum_norm(values: Tensor) -> Tensor:
    return values / values.sum()
