"""FixMatch."""

from __future__ import annotations

from torch import Tensor

from bigopt_plugins.transfer.semi_supervised._method import Method, weighted_cross_entropy


class FixMatch(Method):
    """A confident answer on the weak view is the label of the strong view (Sohn et al. 2020, arXiv:2001.07685, eq. 4).

    ``λ_u · 1/M Σ 1(max q ≥ τ) · CE(strong, argmax q)``, q the probabilities of the weak view.

    Args:
        weight: λ_u.
        threshold: τ.
    """

    def __init__(self, weight: float, threshold: float) -> None:
        super().__init__()
        self.weight = weight
        self.threshold = threshold

    def forward(self, answers: Tensor, logits: Tensor, index: Tensor) -> dict[str, Tensor]:
        """The term ``fixmatch``."""
        confidence, labels = answers.softmax(1).max(1)
        chosen = (confidence >= self.threshold).to(logits.dtype)
        return {"fixmatch": self.weight * weighted_cross_entropy(logits, labels, chosen)}
