"""GPTQ: weights rounded one column after the other, each error made up for by the columns that are still free.

Rounding to nearest minimises ``‖W − Q‖``; what matters is ``‖WX − QX‖``, whose Hessian ``X·Xᵀ`` says how the other
columns can take over what one column lost (Frantar et al. 2023, arXiv:2210.17323; OBQ, Frantar and Alistarh 2022,
arXiv:2208.11580).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from bigopt_plugins.compression.quantization._wiring import evaluating

SOLVABLE = (nn.Conv1d, nn.Conv2d, nn.Linear)
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


def matrix(layer: nn.Module) -> Tensor:
    """A layer's weight as ``(groups, out, in)``, as :func:`gptq` takes it; a view.

    ``in`` are the features of a linear layer, the channels of a group times the kernel's places of a convolution.
    """
    weight = layer.weight
    assert isinstance(weight, Tensor)
    groups = int(getattr(layer, "groups", 1))  # type: ignore[arg-type]
    return weight.detach().reshape(groups, len(weight) // groups, -1)


def gram(layer: nn.Module, x: Tensor) -> tuple[Tensor, int]:
    """``X·Xᵀ`` over everything that the layer's weight is multiplied with, ``(groups, in, in)``, and how many columns.

    Args:
        layer: a convolution or a linear layer.
        x: its input.
    """
    if isinstance(layer, nn.Linear):
        rows = x.detach().reshape(1, -1, x.shape[-1]).transpose(1, 2)
    else:
        rows = _patches(layer, x.detach())
    return (rows @ rows.transpose(1, 2)).double(), rows.shape[2]


def each_layer(
    model: nn.Module,
    layers: Collection[str],
    samples: Tensor,
    act: Callable[[str, nn.Module, Tensor], None],
    *,
    batch_size: int = 64,
) -> None:
    """Calls ``act(name, layer, hessian)`` for each layer in the order of execution; what it changes counts at once.

    So later layers see the inputs that the earlier ones, already rounded, give (section 5 of the paper).

    Args:
        model: eager; changed by ``act`` only.
        layers: names of convolutions and linear layers; those that are never called are left out.
        samples: raw inputs ``(N, …)``, from the training split.
        act: takes the mean ``X·Xᵀ / n`` of shape ``(groups, in, in)``, float64.
        batch_size: rows per forward pass.
    """
    for name, calls in execution_order(model, layers, samples[:1]).items():
        layer = model.get_submodule(name)
        act(name, layer, _hessian(model, layer, samples, batch_size, early=calls == 1))


def execution_order(model: nn.Module, layers: Collection[str], example: Tensor) -> dict[str, int]:
    """Layers in the order of their first call, with the number of calls in one forward pass."""
    order: Counter[str] = Counter()
    handles = [
        model.get_submodule(name).register_forward_pre_hook(lambda _m, _i, name=name: order.update([name]))
        for name in layers
    ]
    try:
        with evaluating(model), torch.no_grad():
            model(example)
    finally:
        for handle in handles:
            handle.remove()
    return dict(order)


class _Reached(Exception):
    """Nothing behind the layer needs to be computed."""


@torch.no_grad()
def _hessian(model: nn.Module, layer: nn.Module, samples: Tensor, batch_size: int, *, early: bool) -> Tensor:
    total: list[Tensor] = []
    columns = 0

    def hook(_module: nn.Module, inputs: tuple[Any, ...]) -> None:
        nonlocal columns
        product, count = gram(layer, inputs[0])
        columns += count
        total[:] = [total[0] + product] if total else [product]
        if early:
            raise _Reached

    handle = layer.register_forward_pre_hook(hook)
    try:
        with evaluating(model):
            for rows in _batches(samples, batch_size):
                try:
                    model(rows)
                except _Reached:
                    continue
    finally:
        handle.remove()
    return total[0] / columns


def _batches(samples: Tensor, size: int) -> Iterator[Tensor]:
    yield from samples.split(size)


def _patches(layer: Any, x: Tensor) -> Tensor:
    """What each place of the kernel sees, ``(groups, in, n)``, channel by channel as in the weight."""
    mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
    x = functional.pad(x, layer._reversed_padding_repeated_twice, mode=mode)
    kernel, stride, dilation = layer.kernel_size, layer.stride, layer.dilation
    if x.ndim == 3:
        x, kernel, stride, dilation = x.unsqueeze(2), (1, *kernel), (1, *stride), (1, *dilation)
    columns = functional.unfold(x, kernel, dilation=dilation, stride=stride)
    return columns.reshape(len(x), layer.groups, -1, columns.shape[-1]).permute(1, 2, 0, 3).flatten(2)


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
                return upper
        share = max(10 * share, 1e-8)
