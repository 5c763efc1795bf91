"""DANN: a discriminator tells the domains apart, and the features learn to deceive it."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from bigopt_plugins.transfer.domain_adaptation._step import Step

HIDDEN = 128
GAMMA = 10.0


class _Reversal(torch.autograd.Function):
    """The identity, whose gradient is multiplied by ``-strength``."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, strength: float) -> Tensor:
        ctx.strength = strength
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return grads[0].neg() * ctx.strength, None


def reverse(x: Tensor, strength: float) -> Tensor:
    """Gradient reversal (Ganin et al. 2016, eq. 16 and 17): ``x`` forwards, ``-strength · ∂`` backwards."""
    reversed_: Tensor = _Reversal.apply(x, strength)
    return reversed_


def ramp(progress: float, gamma: float = GAMMA) -> float:
    """``2 / (1 + exp(-γ·p)) - 1``: from 0 at the start of a fit to almost 1 (Ganin et al. 2016, section 5.2.2)."""
    return 2.0 / (1.0 + math.exp(-gamma * progress)) - 1.0


class Discriminator(nn.Module):
    """Two hidden layers; a logit for the source domain.

    Args:
        inputs: width of what it looks at.
        hidden: units of each hidden layer.
    """

    def __init__(self, inputs: int, hidden: int = HIDDEN) -> None:
        super().__init__()
        self.inputs = inputs
        self.layers = nn.Sequential(
            nn.Linear(inputs, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Logits ``(N,)`` of ``(N, inputs)``."""
        logits: Tensor = self.layers(x).squeeze(1)
        return logits


def domain_loss(
    source: Tensor, target: Tensor, source_weight: Tensor | None = None, target_weight: Any = None
) -> Tensor:
    """Binary cross-entropy of the discriminator, both domains counting the same.

    Args:
        source: its logits for source rows ``(S,)``, whose label is 1.
        target: for target rows ``(T,)``, whose label is 0.
        source_weight: of the source rows, mean 1; None weights all alike.
        target_weight: of the target rows.
    """
    real = functional.binary_cross_entropy_with_logits(source, torch.ones_like(source), weight=source_weight)
    fake = functional.binary_cross_entropy_with_logits(target, torch.zeros_like(target), weight=target_weight)
    return (real + fake) / 2


def dann(step: Step, discriminator: nn.Module) -> Tensor:
    """Domain-adversarial training (Ganin et al. 2016, arXiv:1505.07818).

    Minimising it trains the discriminator; through the reversal the features get ``-ramp(progress)`` times its
    gradient.
    """
    strength = ramp(step.progress)
    return domain_loss(discriminator(reverse(step.source, strength)), discriminator(reverse(step.target, strength)))
