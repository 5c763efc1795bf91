"""Batch norms folded into the layers before them, in the eager model."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from bigopt_plugins.compression.quantization._wiring import WEIGHTED, Wiring, aten, put

FOLDABLE = (nn.Conv1d, nn.Conv2d, nn.Linear)
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)


@torch.no_grad()
def fold_norms(model: nn.Module, example: Tensor) -> list[str]:
    """Folds every batch norm that is the only reader of a layer into that layer; in place.

    ``w ← w·γ/√(σ² + ε)``, ``b ← (b − μ)·γ/√(σ² + ε) + β`` (Jacob et al. 2018, arXiv:1712.05877, eq. 14); an identity
    takes the norm's place. The outputs in evaluation mode stay the same.

    Args:
        model: eager.
        example: raw input ``(N, …)``.

    Returns:
        names of the layers that a norm was folded into.
    """
    wiring = Wiring(model, example)
    folded = []
    for node, name in wiring.layers(WEIGHTED):
        reader = next(iter(node.users))
        norm_name = wiring.alone(reader) if len(node.users) == 1 else None
        if reader.target is not aten.batch_norm.default or norm_name is None:
            continue
        layer, norm = model.get_submodule(name), model.get_submodule(norm_name)
        if type(layer) not in FOLDABLE or not isinstance(norm, NORMS) or norm.running_var is None:
            continue
        if isinstance(layer, nn.Linear) and node.meta["val"].ndim != 2:
            continue  # there the norm's channels are not the layer's
        _fold(layer, norm)
        put(model, norm_name, nn.Identity())
        folded.append(name)
    return folded


def _fold(layer: nn.Module, norm: nn.Module) -> None:
    weight, mean, variance = layer.weight, norm.running_mean, norm.running_var
    assert isinstance(weight, Tensor) and isinstance(mean, Tensor) and isinstance(variance, Tensor)
    scale = (variance + float(norm.eps)).rsqrt()  # type: ignore[arg-type]
    if isinstance(norm.weight, Tensor):
        scale = scale * norm.weight
    bias = -mean if not isinstance(layer.bias, Tensor) else layer.bias - mean
    bias = bias * scale
    if isinstance(norm.bias, Tensor):
        bias = bias + norm.bias
    weight.mul_(scale.reshape(-1, *[1] * (weight.ndim - 1)))
    layer.bias = nn.Parameter(bias.to(weight.dtype), requires_grad=weight.requires_grad)
