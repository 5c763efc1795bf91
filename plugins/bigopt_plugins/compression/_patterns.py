"""Patterns of sparsity: which blocks of a weight are best, and which n of m weights."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional


def parse(pattern: str) -> tuple[tuple[int, int] | None, tuple[int, int] | None]:
    """n:m or the block of a pattern; neither where it is malformed."""
    if pattern == "unstructured":
        return None, (1, 1)
    match = re.fullmatch(r"(\d+)([:x])(\d+)", str(pattern))
    first, second = (int(match[1]), int(match[3])) if match else (0, 0)
    if match and match[2] == ":" and 1 <= first < second:
        return (first, second), None
    if match and match[2] == "x" and first >= 1 and second >= 1:
        return None, (first, second)
    return None, None


def block_scores(weight: Tensor, block: tuple[int, int], norm: str) -> Tensor:
    """Score of each block of a weight as a matrix (out, in · kernel); blocks at the edges may be smaller.

    Args:
        weight: ``(out, in, …)``.
        block: rows and columns of a block.
        norm: ``l1`` for the mean magnitude, ``l2`` for the root of the mean square.

    Returns:
        ``(ceil(rows / block rows), ceil(columns / block columns))``
    """
    matrix = weight.reshape(len(weight), -1)
    if block == (1, 1):
        return matrix.abs()
    power = 1 if norm == "l1" else 2
    sums = _block_sums(matrix.abs() ** power, block)
    return (sums / _block_sums(torch.ones_like(matrix), block)) ** (1 / power)


def spread(mask: Tensor, block: tuple[int, int], shape: torch.Size) -> Tensor:
    """A bool of each block as a bool of each weight."""
    if block == (1, 1):
        return mask.reshape(shape)
    rows, columns = shape[0], math.prod(shape[1:])
    wide = mask.repeat_interleave(block[0], 0).repeat_interleave(block[1], 1)
    return wide[:rows, :columns].reshape(shape)


def n_of_m(weight: Tensor, m: int, n: int) -> Tensor:
    """True at the n largest of every m consecutive input channels of ``(out, in, …)``."""
    groups = weight.abs().movedim(1, -1)
    flat = groups.reshape(-1, m)
    mask = torch.zeros_like(flat, dtype=torch.bool)
    mask.scatter_(1, flat.argsort(dim=1, descending=True, stable=True)[:, :n], True)
    return mask.reshape(groups.shape).movedim(-1, 1).contiguous()


def lamp(scores: Tensor) -> Tensor:
    """``s_u² / Σ s_v²`` over the ``v`` with ``s_v ≥ s_u`` (Lee et al. 2021, eq. 4), so that layers can be compared."""
    flat = scores.reshape(-1)
    order = flat.argsort(descending=True, stable=True)
    squares = flat[order].double().square_()
    sums = squares.cumsum(0).clamp_min_(torch.finfo(torch.float64).tiny)
    values = torch.empty_like(flat)
    values[order] = squares.div_(sums).to(flat.dtype)
    return values.reshape(scores.shape)


def best_blocks(scores: dict[str, Tensor], pool: Sequence[str], strength: float, floor: float) -> dict[str, Tensor]:
    """True at the best blocks of some layers together: as many as are left of those that are not zero.

    The pool's scores are taken out of ``scores``, so that they need no memory any more.
    """
    shapes = {name: scores[name].shape for name in pool}
    sizes = [shape.numel() for shape in shapes.values()]
    flat = torch.cat([scores.pop(name).reshape(-1) for name in pool]) if pool else torch.empty(0)
    for part in flat.split(sizes):
        part[largest(part, math.ceil(floor * len(part))) & (part > 0)] = math.inf  # these must stay
    count = max(round(float((flat > 0).sum()) * (1 - strength)), int(flat.isinf().sum()), len(pool) > 0)
    parts = largest(flat, count).split(sizes)
    return {name: part.reshape(shapes[name]) for name, part in zip(pool, parts, strict=True)}


def largest(values: Tensor, count: int) -> Tensor:
    """True at the ``count`` largest of ``(N,)``, of equal ones at the first; sorting would need more memory."""
    if not 0 < count < len(values):
        return torch.full_like(values, count > 0, dtype=torch.bool)
    at = len(values) - count
    least = float(np.partition(values.cpu().numpy(), at)[at])
    found = values > least
    ties = (values == least).nonzero().flatten()
    found[ties[: count - int(found.sum())]] = True
    return found


def _block_sums(matrix: Tensor, block: tuple[int, int]) -> Tensor:
    rows, columns = (-(-size // length) for size, length in zip(matrix.shape, block, strict=True))
    pad = (0, columns * block[1] - matrix.shape[1], 0, rows * block[0] - matrix.shape[0])
    return functional.pad(matrix, pad).reshape(rows, block[0], columns, block[1]).sum((1, 3))
