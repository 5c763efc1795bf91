"""Pseudo-label."""

from __future__ import annotations

from typing import ClassVar, Literal

from torch import Tensor

from bigopt_plugins.transfer.semi_supervised._method import Method, weighted_cross_entropy


class PseudoLabel(Method):
    """The model's own most likely class is the label of an unlabelled row (Lee 2013, ICML workshop, eq. 15 and 16).

    ``α(t) · 1/M Σ CE(f(x), argmax f(x))``, where α is 0 up to a sixth of the ramp and rises linearly to the weight
    at its end (in the paper: epochs 100 and 600).

    Args:
        weight: α at the end.
        threshold: only rows whose largest probability reaches it; 0 takes all, as the paper does.
        ramp: share of the fit after which α is reached; 0 for at once.
    """

    student: ClassVar[Literal["weak", "strong"]] = "weak"
    teacher: ClassVar[Literal["self", "model", "average"]] = "self"
    paper_weight: ClassVar[float] = 3.0

    def __init__(self, weight: float, threshold: float, ramp: float) -> None:
        super().__init__()
        self.weight = weight
        self.threshold = threshold
        self.ramp = ramp

    def share(self) -> Tensor:
        """How much of the weight acts now, in [0, 1]."""
        if self.ramp == 0:
            return self.progress.new_ones(())
        first = self.ramp / 6
        return ((self.progress - first) / (self.ramp - first)).clamp(0, 1)

    def forward(self, answers: Tensor, logits: Tensor, index: Tensor) -> dict[str, Tensor]:
        """The term ``pseudo_label``."""
        confidence, labels = answers.softmax(1).max(1)
        chosen = (confidence >= self.threshold).to(logits.dtype)
        return {"pseudo_label": self.weight * self.share() * weighted_cross_entropy(logits, labels, chosen)}
