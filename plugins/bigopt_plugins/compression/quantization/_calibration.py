"""Ranges of values before anything is trained: where integers begin and end."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from bigopt_plugins.compression.quantization._grid import Grid, fake

Method = Literal["minmax", "percentile", "mse"]

SHRINKS = 64
"""Ranges that the search for the least squared error tries, evenly between this share of the whole range and all."""
LEAST_SHARE = 0.15


def ranges(rows: Tensor, grid: Grid, method: Method, percentile: float = 99.99) -> tuple[Tensor, Tensor]:
    """Least and largest value that each row's integers stand for, with 0 among them.

    Args:
        rows: values ``(R, n)``; each row gets a range of its own.
        grid: of the integers.
        method: ``minmax`` all values; ``percentile`` cuts off the outermost, on both sides; ``mse`` shrinks the range
            to where the squared rounding error is least (Choukroun et al. 2019, arXiv:1902.06822, per tensor).
        percentile: share of the values within, in percent.

    Returns:
        low and high, each ``(R, 1)``.
    """
    low, high = rows.amin(1, keepdim=True).clamp_max(0), rows.amax(1, keepdim=True).clamp_min(0)
    if method == "percentile":
        return _percentile(rows, low, high, percentile / 100)
    return (low, high) if method == "minmax" else _least_error(rows, grid, low, high)


def steps(rows: Tensor, grid: Grid, method: Method, percentile: float = 99.99) -> tuple[Tensor, Tensor]:
    """Step and zero point ``(R, 1)`` of each row; arguments as for :func:`ranges`."""
    return grid.steps(*ranges(rows, grid, method, percentile))


def _percentile(rows: Tensor, low: Tensor, high: Tensor, share: float) -> tuple[Tensor, Tensor]:
    ordered = rows.sort(1).values
    last = rows.shape[1] - 1
    outside = (1 - share) / 2 * last
    lower, upper = round(outside), round(last - outside)
    return torch.maximum(low, ordered[:, lower, None].clamp_max(0)), torch.minimum(
        high, ordered[:, upper, None].clamp_min(0)
    )


def _least_error(rows: Tensor, grid: Grid, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    """Both ends are shrunk together; then, where zero may move, each end on its own."""
    best = _search(rows, grid, low, high, both=(True, True))
    if not grid.symmetric and bool((low < 0).any()):
        best = _search(rows, grid, *best, both=(False, True))
        best = _search(rows, grid, *best, both=(True, False))
    return best


def _search(rows: Tensor, grid: Grid, low: Tensor, high: Tensor, both: tuple[bool, bool]) -> tuple[Tensor, Tensor]:
    best_low, best_high = low, high
    least = torch.full_like(low, float("inf"))
    for share in torch.linspace(1, LEAST_SHARE, SHRINKS).tolist():
        lower, upper = low * (share if both[0] else 1), high * (share if both[1] else 1)
        step, zero = grid.steps(lower, upper)
        error = (fake(rows, step, zero, grid) - rows).square_().mean(1, keepdim=True)
        better = error < least
        least = torch.where(better, error, least)
        best_low, best_high = torch.where(better, lower, best_low), torch.where(better, upper, best_high)
    return best_low, best_high


class Sample:
    """Collects values of one activation over calibration batches.

    Args:
        size: values that are kept of each batch, drawn at random; the extremes of all are kept besides.
        generator: draws them.
    """

    def __init__(self, size: int, generator: torch.Generator) -> None:
        self.size = size
        self.generator = generator
        self.kept: list[Tensor] = []
        self.low = float("inf")
        self.high = float("-inf")
        self.features = 0

    def add(self, values: Tensor) -> None:
        """Takes in a batch ``(N, …)``."""
        self.features = values[0].numel()
        flat = values.detach().reshape(-1).float()
        self.low, self.high = min(self.low, flat.min().item()), max(self.high, flat.max().item())
        if flat.numel() > self.size:
            index = torch.randint(flat.numel(), (self.size,), generator=self.generator)
            flat = flat[index.to(flat.device)]
        self.kept.append(flat.cpu())

    def values(self) -> Tensor:
        """What was kept ``(1, n)``, the extremes included."""
        return torch.cat([*self.kept, torch.tensor([self.low, self.high])]).reshape(1, -1)
