"""What the weights of each layer are multiplied with on training samples: the Hessian of its output error."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from bigopt.train.modes import evaluating
from bigopt_plugins.compression.quantization._smoothquant import SmoothedLinear
from bigopt_plugins.compression.quantization._wiring import Hook, watch


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
    if isinstance(layer, SmoothedLinear):
        x = x * layer.reciprocal
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

    def count(name: str) -> Hook:
        return lambda _input, _output: order.update([name])

    watch(model, {name: count(name) for name in layers}, example, len(example))
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
            for rows in samples.split(batch_size):
                try:
                    model(rows)
                except _Reached:
                    continue
    finally:
        handle.remove()
    return total[0] / columns


def _patches(layer: Any, x: Tensor) -> Tensor:
    """What each place of the kernel sees, ``(groups, in, n)``, channel by channel as in the weight."""
    mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
    x = functional.pad(x, layer._reversed_padding_repeated_twice, mode=mode)
    kernel, stride, dilation = layer.kernel_size, layer.stride, layer.dilation
    if x.ndim == 3:
        x, kernel, stride, dilation = x.unsqueeze(2), (1, *kernel), (1, *stride), (1, *dilation)
    columns: Tensor = functional.unfold(x, kernel, dilation=dilation, stride=stride)
    return columns.reshape(len(x), int(layer.groups), -1, columns.shape[-1]).permute(1, 2, 0, 3).flatten(2)
