"""Mean Teacher."""

from __future__ import annotations

import copy
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from bigopt.train import STAY_EVAL
from bigopt_plugins.transfer.semi_supervised._method import Method


class MeanTeacher(Method):
    """Consistency with the moving average of the weights (Tarvainen and Valpola 2017, arXiv:1703.01780).

    ``w(t) · mean (softmax f(x; θ, η) - softmax f(x; θ', η'))²`` over all rows and classes, where η and η' are two weak
    views, and ``w(t) = w · exp(-5 (1 - t)²)`` while t rises from 0 to 1 over the ramp (Laine and Aila 2017).

    Args:
        weight: w; the paper takes 100 on CIFAR-10.
        ramp: share of the fit after which w is reached; 0 for at once.
    """

    student: ClassVar[Literal["weak", "strong"]] = "weak"
    teacher: ClassVar[Literal["self", "model", "average"]] = "average"
    everyone: ClassVar[bool] = True
    paper_weight: ClassVar[float] = 100.0

    def __init__(self, weight: float, ramp: float) -> None:
        super().__init__()
        self.weight = weight
        self.ramp = ramp

    def share(self) -> Tensor:
        """How much of the weight acts now, in (0, 1]."""
        if self.ramp == 0:
            return self.progress.new_ones(())
        left = 1 - (self.progress / self.ramp).clamp(max=1)
        return torch.exp(-5 * left.square())

    def forward(self, answers: Tensor, logits: Tensor, index: Tensor) -> dict[str, Tensor]:
        """The term ``mean_teacher``."""
        distance = functional.mse_loss(logits.softmax(1), answers.softmax(1))
        return {"mean_teacher": self.weight * self.share() * distance}


class Average(nn.Module):
    """The teacher: ``θ' ← α_t θ' + (1 - α_t) θ`` with ``α_t = min(1 - 1/(t + 1), α)`` for the t-th update, t ≥ 1.

    Floating-point buffers are averaged like parameters, so that batch norm's statistics belong to the averaged weights;
    whole numbers are copied. It is always in evaluation mode, and nothing trains it.

    Args:
        student: whose weights are averaged; the average starts at them.
        decay: α.
    """

    updates: Tensor

    def __init__(self, student: nn.Module, decay: float) -> None:
        super().__init__()
        self.model = copy.deepcopy(student).eval().requires_grad_(False)
        setattr(self.model, STAY_EVAL, True)
        self.decay = decay
        self.register_buffer("updates", torch.zeros((), dtype=torch.int64))

    def forward(self, x: Tensor) -> Tensor:
        """The teacher's logits ``(N, K)`` of raw inputs."""
        logits: Tensor = self.model(x)
        return logits

    @torch.no_grad()
    def update(self, student: nn.Module) -> None:
        """Takes in the student's present weights and buffers."""
        self.updates += 1
        decay = min(1 - 1 / (int(self.updates) + 1), self.decay)
        own, new = self.model.state_dict(), student.state_dict()
        for name, value in own.items():
            if value.is_floating_point():
                value.lerp_(new[name].detach(), 1 - decay)
            else:
                value.copy_(new[name])
