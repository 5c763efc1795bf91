"""Fake quantization with a learned step."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from typing import Any

import torch
from torch import Tensor

Rounded = Callable[[Tensor, Tensor, Tensor, float, float], Tensor]
Gradients = Callable[[Tensor, Tensor, Tensor, Tensor, float, float], tuple[Tensor, Tensor]]

LEAST = 1 / 16
"""A step never shrinks below this share of the calibrated one: at zero it would be lost."""


def rounded(x: Tensor, step: Tensor, zero: Tensor, low: float, high: float) -> Tensor:
    """The numbers of the grid that values stand for, computed in float32 and given in the values' own type."""
    return (x.float() / step).add_(zero).round_().clamp_(low, high).sub_(zero).mul_(step).to(x.dtype)


def gradients(grad: Tensor, x: Tensor, step: Tensor, zero: Tensor, low: float, high: float) -> tuple[Tensor, Tensor]:
    """Of :func:`rounded`, for the values and for the step."""
    shifted = (x.float() / step).add_(zero)
    inside = (shifted >= low) & (shifted <= high)
    slope = shifted.round().clamp_(low, high).sub_(torch.where(inside, shifted, zero))
    return grad * inside, slope.mul_(grad).sum_to_size(step.shape)


@cache
def compiled() -> tuple[Rounded, Gradients]:
    """Both as one loop over the values each: eager, a dozen passes through memory take ten times as long."""
    return torch.compile(rounded, dynamic=True), torch.compile(gradients, dynamic=True)


LOOPS: ContextVar[bool] = ContextVar("compiled_loops", default=False)
"""Whether :class:`LearnedStep` computes with compiled loops."""


@contextmanager
def compiled_loops() -> Iterator[None]:
    """What is rounded in this block, and its gradients later, is computed by :func:`compiled`."""
    before = LOOPS.set(True)
    try:
        yield
    finally:
        LOOPS.reset(before)


class LearnedStep(torch.autograd.Function):
    """LSQ (Esser et al. 2020, arXiv:1902.08153), eq. 1–3 and 5, with a zero point as in LSQ+ that is kept.

    With ``v = x / s``, ``Q_N = z − q_min`` and ``Q_P = q_max − z``, the output is ``round(clip(v, −Q_N, Q_P)) · s``.
    The gradient of ``x`` is passed on inside of the range; that of ``s`` is ``round(v) − v`` inside, ``−Q_N`` below and
    ``Q_P`` above, summed over all values that share the step, times the scale ``g``.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, step: Tensor, zero: Tensor, low: int, high: int, scale: float) -> Tensor:
        """Args as the class says; step and zero broadcast to ``x``."""
        ctx.save_for_backward(x, step, zero)
        forward, ctx.gradients = compiled() if LOOPS.get() else (rounded, gradients)
        ctx.range, ctx.scale = (float(low), float(high)), scale
        return forward(x.detach(), step.detach(), zero, *ctx.range)  # whether they have gradients would be compiled in

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        """Gradients of ``x`` and the step."""
        x, step, zero = ctx.saved_tensors
        of_x, of_step = ctx.gradients(grads[0].detach(), x.detach(), step.detach(), zero, *ctx.range)
        return of_x, of_step * ctx.scale, None, None, None, None


def gradient_scale(count: int, high: int) -> float:
    """``g = 1 / √(N · Q_P)``: with it, steps move as fast for their size as weights do (section 2.2)."""
    return 1 / math.sqrt(max(1, count * high))


def learned(start: Tensor, ratio: Tensor) -> Tensor:
    """The step as ``start · ratio``.

    So optimizers whose updates do not follow the gradient's size move any step by the same share of it. The ratio's
    gradient is divided by ``start²``, with which plain SGD moves the step as in the paper.
    """
    ratio = ratio.clamp_min(LEAST)
    factor = start.square().reciprocal()
    return start * (ratio.detach() + (ratio - ratio.detach()) * factor)


def learned_fake(x: Tensor, step: Tensor, zero: Tensor, low: int, high: int, scale: float) -> Tensor:
    """:class:`LearnedStep` as a function."""
    out: Tensor = LearnedStep.apply(x, step, zero, low, high, scale)  # type: ignore[no-untyped-call]
    return out
