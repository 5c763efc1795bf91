"""Fake quantization with a learned step."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

LEAST = 1 / 16
"""A step never shrinks below this share of the calibrated one: at zero it would be lost."""


class LearnedStep(torch.autograd.Function):
    """LSQ (Esser et al. 2020, arXiv:1902.08153), eq. 1–3 and 5, with a zero point as in LSQ+ that is kept.

    With ``v = x / s``, ``Q_N = z − q_min`` and ``Q_P = q_max − z``, the output is ``round(clip(v, −Q_N, Q_P)) · s``.
    The gradient of ``x`` is passed on inside of the range; that of ``s`` is ``round(v) − v`` inside, ``−Q_N`` below and
    ``Q_P`` above, summed over all values that share the step, times the scale ``g``.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, step: Tensor, zero: Tensor, low: int, high: int, scale: float) -> Tensor:
        """Args as the class says; step and zero broadcast to ``x``."""
        shifted = x / step + zero
        integers = shifted.round().clamp_(low, high)
        ctx.save_for_backward(shifted, integers, zero)
        ctx.low, ctx.high, ctx.scale, ctx.shape = low, high, scale, step.shape
        return (integers - zero) * step

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        """Gradients of ``x`` and the step."""
        (grad,) = grads
        shifted, integers, zero = ctx.saved_tensors
        inside = (shifted >= ctx.low) & (shifted <= ctx.high)
        slope = torch.where(inside, integers - shifted, integers - zero)
        return grad * inside, (grad * slope).sum_to_size(ctx.shape) * ctx.scale, None, None, None, None


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
