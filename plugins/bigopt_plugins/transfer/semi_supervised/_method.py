"""What every semi-supervised method is: a module whose buffers are its state, giving terms for unlabelled rows."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional


class Method(nn.Module):
    """Terms of the loss on unlabelled rows.

    Class attributes:
        student: the view on which the model learns.
        teacher: who answers: the same pass of the model (``self``), the model on a weak view (``model``), or the
            moving average of its weights on a weak view (``average``). No gradient ever reaches an answer.
        everyone: whether labelled rows take part as well.
        paper_weight: weight of the main term unless the configuration says otherwise.

    Attributes:
        progress: share of the fit that is over, in [0, 1]; set before each step.
    """

    student: ClassVar[Literal["weak", "strong"]] = "strong"
    teacher: ClassVar[Literal["self", "model", "average"]] = "model"
    everyone: ClassVar[bool] = False
    paper_weight: ClassVar[float] = 1.0

    progress: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("progress", torch.zeros(()))

    def forward(self, answers: Tensor, logits: Tensor, index: Tensor) -> dict[str, Tensor]:
        """Named terms.

        Args:
            answers: the teacher's logits ``(M, K)``, without gradient.
            logits: the model's ``(M, K)``.
            index: positions ``(M,)`` of the rows in the unlabelled split.
        """
        raise NotImplementedError


def weighted_cross_entropy(logits: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
    """``1/M Σ w_i · CE(logits_i, label_i)``: rows that are left out count in M.

    Args:
        logits: ``(M, K)``.
        labels: ``(M,)`` int64.
        weights: ``(M,)``.
    """
    return (weights * functional.cross_entropy(logits, labels, reduction="none")).mean()
