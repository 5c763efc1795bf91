"""Attention transfer: where a net looks."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor
from torch.nn import functional


def attention_map(features: Tensor, grid: Sequence[int] = ()) -> Tensor:
    """Energy of the channels at every place, of unit length (Zagoruyko and Komodakis 2017, arXiv:1612.03928, eq. 1).

    Args:
        features: maps ``(N, C, H, W)``, or tokens ``(N, L, D)``.
        grid: places along each side after averaging the energy; empty keeps them.

    Returns:
        ``Q / ‖Q‖₂`` with ``Q = Σ_c |A_c|²``, ``(N, places)`` float32.
    """
    channels = 1 if features.ndim == 4 else 2
    energy = features.float().square().sum(channels)
    return functional.normalize(pooled(energy.unsqueeze(1), grid).flatten(1), dim=1)


def attention_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """``‖Q_S / ‖Q_S‖ - Q_T / ‖Q_T‖‖₂²``, mean over rows (eq. 2 with the square, as is usual).

    Args:
        student: maps as :func:`attention_map` gives them, ``(N, places)``.
        teacher: the same for the teacher.
    """
    return (student - teacher).square().sum(1).mean()


def pooled(x: Tensor, grid: Sequence[int]) -> Tensor:
    """Means over the cells of a grid: ``(N, C, H, W)`` to ``(N, C, *grid)``, ``(N, C, L)`` to ``(N, C, *grid)``."""
    if not grid or tuple(x.shape[2:]) == tuple(grid):
        return x
    if x.ndim == 3:
        return functional.adaptive_avg_pool1d(x, int(grid[0]))
    return functional.adaptive_avg_pool2d(x, (int(grid[0]), int(grid[1])))
