"""The pair of thin layers that a singular value decomposition gives, and putting it in a layer's place."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn


class Pair(nn.Sequential):
    """Two layers in the place of one: to ``rank`` channels with the kernel, stride and padding; then 1×1 with the bias.

    Args:
        first: linear layer or convolution without bias.
        second: linear layer or 1×1 convolution.
    """

    def __init__(self, first: nn.Module, second: nn.Module) -> None:
        super().__init__(first, second)

    @property
    def rank(self) -> int:
        """Channels between the two layers."""
        return len(ends(self)[0].weight)

    @classmethod
    def like(cls, layer: Any, rank: int) -> Pair:
        """A pair with a layer's (or another pair's) inputs and outputs; its weights are still to be set."""
        first, second = ends(layer)
        bias = second.bias is not None
        if isinstance(first, nn.Linear):
            made = cls(nn.Linear(first.in_features, rank, bias=False), nn.Linear(rank, second.out_features, bias))
        else:
            thin = nn.Conv2d(
                first.in_channels,
                rank,
                first.kernel_size,
                first.stride,
                first.padding,
                first.dilation,
                bias=False,
                padding_mode=first.padding_mode,
            )
            made = cls(thin, nn.Conv2d(rank, second.out_channels, 1, bias=bias))
        weight = first.weight
        made.to(device=weight.device, dtype=weight.dtype).train(layer.training)
        return made.requires_grad_(weight.requires_grad)


def ends(layer: Any) -> tuple[Any, Any]:
    """First and second layer of a pair; of any other layer itself, twice."""
    return (layer[0], layer[1]) if isinstance(layer, Pair) else (layer, layer)


def matrix_of(layer: Any) -> Tensor:
    """The weight as a matrix ``(out, in)`` or ``(out, in · kernel)``; of a pair the product."""
    first, second = ends(layer)
    matrix: Tensor = second.weight.detach().flatten(1)
    return matrix if first is second else matrix @ first.weight.detach().flatten(1)


def size_of(layer: Any) -> int:
    """Elements of the weights, without the bias."""
    first, second = ends(layer)
    total: int = first.weight.numel() if first is second else first.weight.numel() + second.weight.numel()
    return total


def rank_of(layer: Any, values: Tensor, strength: float, rank_by: str) -> int | None:
    """The rank that takes this share of the parameters, or of the energy, away; None where that saves nothing.

    Args:
        layer: linear layer, convolution or pair.
        values: singular values of its matrix, descending.
        strength: share in [0, 1] to take away.
        rank_by: ``ratio`` of the parameters, or ``energy``, which is ``Σ σ²``.
    """
    cost = sum(matrix_of(layer).shape)
    if strength <= 0:
        return None
    if rank_by == "ratio":
        rank = max(1, round((1 - strength) * size_of(layer) / cost))
    else:
        energy = (values.double() ** 2).cumsum(0)
        wanted = (1 - strength) * float(energy[-1])
        rank = min(len(values), int((energy < wanted * (1 - 1e-12)).sum()) + 1)
    return rank if rank * cost < size_of(layer) else None


def factors(layer: Any, rank: int) -> Pair:
    """The pair of this rank that is nearest to the layer; the singular values' roots go to either side."""
    pair = Pair.like(layer, rank)
    u, s, v = torch.linalg.svd(matrix_of(layer).double(), full_matrices=False)
    root = s[:rank].sqrt()
    bias = ends(layer)[1].bias
    first, second = ends(pair)
    with torch.no_grad():
        first.weight.copy_((root[:, None] * v[:rank]).reshape(first.weight.shape))
        second.weight.copy_((u[:, :rank] * root).reshape(second.weight.shape))
        if bias is not None:
            second.bias.copy_(bias)
    return pair


def kept_energy(values: Tensor, rank: int) -> tuple[float, float]:
    """Share of ``Σ σ²`` in the first values, and ``‖W - Ŵ‖ / ‖W‖`` of what is left out."""
    squares = values.double() ** 2
    share = float(squares[:rank].sum() / squares.sum().clamp_min(1e-300))
    return share, math.sqrt(max(0.0, 1 - share))


def swap(model: nn.Module, name: str, pair: Pair, example: Tensor) -> str | None:
    """Puts a pair in a layer's place; if the model does not run with it, takes it back and gives the reason."""
    layer = model.get_submodule(name)
    modes = [(module, module.training) for module in model.modules()]
    model.set_submodule(name, pair)
    try:
        with torch.no_grad():
            model.eval()(example)
    except Exception as error:  # whatever a stranger's module does with its layer
        model.set_submodule(name, layer)
        return (
            f"the model does not run without it ({str(error).splitlines()[0] if str(error) else type(error).__name__})"
        )
    finally:
        for module, training in modes:
            module.training = training
    return None


def parent(model: nn.Module, name: str) -> nn.Module:
    """The module that holds the named one."""
    return model.get_submodule(name.rpartition(".")[0])
