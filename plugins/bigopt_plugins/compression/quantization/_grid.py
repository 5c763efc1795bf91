"""Integer grids: ``w ≈ s · (q − z)`` with ``q`` among ``q_min … q_max``, and which weights share a step ``s``."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

Granularity = Literal["per_tensor", "per_channel", "per_group"]


@dataclass(frozen=True)
class Grid:
    """The integers that values are rounded to.

    Attributes:
        low: least integer.
        high: largest integer.
        symmetric: whether zero always is the integer 0.
        free: bits of the integers' type that are left free for sums.
    """

    low: int
    high: int
    symmetric: bool
    free: int = 0

    @property
    def bits(self) -> int:
        """Width of the integers, with what is left free."""
        return (self.high - self.low).bit_length() + self.free

    def steps(self, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
        """Step and zero point of ranges that contain 0 (both of the shape of ``low``); a range of nothing gets 1."""
        if self.symmetric:
            step = torch.maximum(high / self.high, low / self.low)
            zero = torch.zeros_like(step)
        else:
            step = (high - low) / (self.high - self.low)
            zero = (self.low - (low / step.clamp_min(tiny(step))).round()).clamp(self.low, self.high)
        return torch.where(step > tiny(step), step, torch.ones_like(step)), zero


def weight_grid(bits: int, symmetric: bool, reduce_range: bool = False) -> Grid:
    """Signed integers; symmetric ones of 8 bits leave out −128, and with ``reduce_range`` they use 7 of their bits."""
    if bits == 8 and symmetric:
        return Grid(-63, 63, True, free=1) if reduce_range else Grid(-127, 127, True)
    if bits == 8 and reduce_range:
        return Grid(-64, 63, False, free=1)
    return Grid(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1, symmetric)


def activation_grid(bits: int) -> Grid:
    """Unsigned integers, affine."""
    return Grid(0, 2**bits - 1, False)


def rows_of(weight: Tensor, granularity: Granularity, group_size: int) -> Tensor:
    """A weight ``(out, …)`` as a matrix whose rows share a step; a view where possible.

    Raises:
        ValueError: groups that do not fit; see :func:`group_fits`.
    """
    if granularity == "per_tensor":
        return weight.reshape(1, -1)
    if granularity == "per_channel":
        return weight.reshape(len(weight), -1)
    if not group_fits(weight, group_size):
        raise ValueError(f"groups of {group_size} do not divide {tuple(weight.shape)}")
    return weight.reshape(-1, group_size)


def group_fits(weight: Tensor, group_size: int) -> bool:
    """Whether an output channel's weights fall into whole groups."""
    return math.prod(weight.shape[1:]) % group_size == 0


def to_integers(values: Tensor, step: Tensor, zero: Tensor, grid: Grid) -> Tensor:
    """``clip(round(x / s) + z, q_min, q_max)``, still as floats; step and zero broadcast to the values."""
    return (values / step + zero).round().clamp(grid.low, grid.high)


def fake(values: Tensor, step: Tensor, zero: Tensor, grid: Grid) -> Tensor:
    """The numbers that the integers stand for."""
    return (to_integers(values, step, zero, grid) - zero) * step


def tiny(like: Tensor) -> float:
    """Least step that is told from zero."""
    return torch.finfo(like.dtype).tiny
