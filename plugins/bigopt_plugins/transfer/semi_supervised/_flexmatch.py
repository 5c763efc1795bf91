"""FlexMatch."""

from __future__ import annotations

import torch
from torch import Tensor

from bigopt_plugins.transfer.semi_supervised._method import Method, weighted_cross_entropy


class FlexMatch(Method):
    """FixMatch with a lower threshold for classes that are learnt later (Zhang et al. 2021, arXiv:2110.08263).

    ``σ(c)`` is the number of unlabelled samples whose last confident answer (max q > τ) was c (eq. 5), with the
    warm-up of eq. 11: ``β(c) = σ(c) / max(max σ, N - Σ σ)``; the class's threshold is ``M(β(c)) · τ`` with
    ``M(β) = β / (2 - β)`` (eq. 12).

    Args:
        weight: λ of the term.
        threshold: τ.
        rows: unlabelled samples N.
        classes: number of classes.
    """

    answered: Tensor

    def __init__(self, weight: float, threshold: float, rows: int, classes: int) -> None:
        super().__init__()
        self.weight = weight
        self.threshold = threshold
        self.classes = classes
        self.register_buffer("answered", torch.full((rows,), classes))  # ``classes``: never confident so far

    def thresholds(self) -> Tensor:
        """Threshold of each class ``(K,)``."""
        counts = torch.bincount(self.answered, minlength=self.classes + 1)
        learnt = counts[:-1] / counts.max().clamp(min=1)  # the last count is N - Σ σ
        return self.threshold * learnt / (2 - learnt)

    def forward(self, answers: Tensor, logits: Tensor, index: Tensor) -> dict[str, Tensor]:
        """The term ``flexmatch``; remembers the confident answers for the next step."""
        confidence, labels = answers.softmax(1).max(1)
        chosen = (confidence > self.thresholds()[labels]).to(logits.dtype)
        sure = confidence > self.threshold
        self.answered[index[sure]] = labels[sure]
        return {"flexmatch": self.weight * weighted_cross_entropy(logits, labels, chosen)}
