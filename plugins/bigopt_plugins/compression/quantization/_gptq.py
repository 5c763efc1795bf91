"""GPTQ: weights rounded one column after the other, each error made up for by the columns that are still free.

Rounding to nearest minimises ``‖W − Q‖``; what matters is ``‖WX − QX‖``, whose Hessian ``X·Xᵀ`` says how the other
columns can take over what one column lost (Frantar et al. 2023, arXiv:2210.17323; OBQ, Frantar and Alistarh 2022,
arXiv:2208.11580).
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

BLOCK = 128
"""Columns whose corrections are held back from the rest, for fewer and larger products (section 4, step 2)."""


@torch.no_grad()
def gptq(
    weight: Tensor,
    hessian: Tensor,
    scale: Tensor,
    zero: Tensor,
    low: int,
    high: int,
    *,
    damping: float = 0.01,
    order: Literal["activations", "given"] = "activations",
) -> Tensor:
    """Integers q such that ``scale·(q − zero)`` gives nearly what the weight gives on the data behind the Hessian.

    Column j is rounded, and its error ``e = (w_j − ŵ_j) / U_jj`` is taken off the columns to the right,
    ``W ← W − e·U_j`` with ``U`` the upper Cholesky factor of ``(H + λI)⁻¹`` (algorithm 1 of the paper).

    Args:
        weight: ``(out, in)``, or ``(groups, out, in)`` where each group has a Hessian of its own.
        hessian: ``(in, in)`` or ``(groups, in, in)``; any multiple of ``X·Xᵀ``.
        scale: broadcastable to the weight: per tensor, per row, or per group of columns repeated over its columns.
        zero: integers, broadcastable to the weight.
        low: smallest integer.
        high: largest integer.
        damping: λ as a share of the Hessian's mean diagonal; raised where the Hessian is still singular.
        order: columns in the order of falling diagonal, so that the most used ones are rounded while all others can
            make up for them, or as they are.

    Returns:
        int32, of the weight's shape.
    """
    shape = weight.shape
    w = weight.reshape(-1, *shape[-2:]).double().clone()
    h = hessian.reshape(-1, *hessian.shape[-2:]).to(w)
    s = scale.to(w).expand(shape).reshape(w.shape)
    z = zero.to(w).expand(shape).reshape(w.shape)
    columns = w.shape[-1]
    diagonal = h.diagonal(dim1=1, dim2=2)
    falling = diagonal.argsort(dim=1, descending=True, stable=True)
    place = falling if order == "activations" else torch.arange(columns, device=w.device).expand_as(falling)
    across = place[:, None, :].expand_as(w)
    w, s, z = (tensor.gather(2, across) for tensor in (w, s, z))
    h = h.gather(1, place[:, :, None].expand_as(h)).gather(2, place[:, None, :].expand_as(h))
    upper = _inverse_factor(h, damping)
    q = torch.empty_like(w)
    for start in range(0, columns, BLOCK):
        end = min(start + BLOCK, columns)
        errors = torch.empty_like(w[:, :, start:end])
        for j in range(start, end):
            q[:, :, j] = nearest(w[:, :, j], s[:, :, j], z[:, :, j], low, high)
            rounded = s[:, :, j] * (q[:, :, j] - z[:, :, j])
            error = (w[:, :, j] - rounded) / upper[:, j, j, None]
            w[:, :, j:end] -= error[:, :, None] * upper[:, j, None, j:end]
            errors[:, :, j - start] = error
        w[:, :, end:] -= errors @ upper[:, start:end, end:]
    back = torch.empty_like(q).scatter_(2, across, q)
    return back.reshape(shape).to(torch.int32)


def nearest(weight: Tensor, scale: Tensor, zero: Tensor, low: int, high: int) -> Tensor:
    """The integers whose value ``scale·(q − zero)`` is nearest, in the weight's own type."""
    return (weight / scale + zero).round().clamp(low, high)


def output_error(weight: Tensor, other: Tensor, hessian: Tensor) -> float:
    """``‖WX − QX‖²`` for Hessians ``X·Xᵀ``; shapes as for :func:`gptq`."""
    shape = weight.shape
    difference = (weight - other).reshape(-1, *shape[-2:]).double()
    h = hessian.reshape(-1, *hessian.shape[-2:]).to(difference)
    return float(((difference @ h) * difference).sum())


def _inverse_factor(hessian: Tensor, damping: float) -> Tensor:
    """``U`` with ``UᵀU = (H + λI)⁻¹``, upper triangular."""
    diagonal = hessian.diagonal(dim1=1, dim2=2)
    mean = diagonal.mean(1)
    unit = torch.eye(hessian.shape[-1], dtype=hessian.dtype, device=hessian.device)
    amount = torch.where(mean > 0, mean, torch.ones_like(mean))[:, None, None] * unit
    share = damping
    while True:
        lower, failed = torch.linalg.cholesky_ex(hessian + share * amount)
        if not failed.any():
            upper, failed = torch.linalg.cholesky_ex(torch.cholesky_inverse(lower), upper=True)
            if not failed.any():
                result: Tensor = upper
                return result
        share = max(10 * share, 1e-8)
