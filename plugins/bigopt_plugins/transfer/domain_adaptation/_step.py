"""What a method sees of one training step."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Step:
    """Source and target rows of one batch.

    Attributes:
        source: what enters the head for the source rows ``(S, F)``.
        target: the same for the target rows ``(T, F)``.
        source_logits: ``(S, K)``.
        target_logits: ``(T, K)``.
        progress: share of the fit that is done, in [0, 1].
    """

    source: Tensor
    target: Tensor
    source_logits: Tensor
    target_logits: Tensor
    progress: float = 1.0
