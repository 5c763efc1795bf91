"""SmoothQuant: the range of outlier channels moved from activations, which share one scale, into weights.

The channels of a layer norm's output differ in range by orders of magnitude, always the same ones; the linear layers
behind it have room for them (Xiao et al. 2023, arXiv:2211.10438).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.fx import Node

from bigopt_plugins.compression.quantization._wiring import Hook, Wiring, aten, put, watch

PASSING = {aten.dropout.default, aten.alias.default, aten.clone.default, aten.contiguous.default}
LEAST = 1e-5
"""Of a channel's range: channels that are never used keep a finite factor."""


class SmoothedLinear(nn.Linear):
    """A linear layer that divides its input by a factor per channel first, where no norm before it can.

    Args:
        layer: whose weight and bias are taken over.
        factors: ``(in,)``.
    """

    reciprocal: Tensor

    def __init__(self, layer: nn.Linear, factors: Tensor) -> None:
        super().__init__(layer.in_features, layer.out_features, device="meta")
        self.weight, self.bias = layer.weight, layer.bias
        self.register_buffer("reciprocal", factors.reciprocal())

    def forward(self, x: Tensor) -> Tensor:
        """``(N, …, in)`` to ``(N, …, out)``."""
        return nn.functional.linear(x * self.reciprocal, self.weight, self.bias)


@dataclass(frozen=True)
class Smoothed:
    """Linear layers behind one layer norm.

    Attributes:
        norm: name of the layer norm.
        linears: names of the linear layers that read its output.
        folded: whether the norm took the factors in; otherwise its output has other readers too (the residual of a
            post-norm block, as in BERT), and each linear layer divides its own input.
    """

    norm: str
    linears: tuple[str, ...]
    folded: bool


@torch.no_grad()
def smooth(model: nn.Module, samples: Tensor, alpha: float = 0.5, *, batch_size: int = 256) -> list[Smoothed]:
    """Divides each channel behind a layer norm by ``s_j`` and multiplies the weights that read it; in place.

    ``s_j = max|X_j|^α / max|W_j|^(1 − α)`` (eq. 4 of the paper), with the maxima over samples and over all linear
    layers that read the channel. The outputs stay the same.

    Args:
        model: eager.
        samples: raw inputs ``(N, …)``, from the training split.
        alpha: how much of the range is moved, in [0, 1]: 0.5 splits it evenly, 1 gives all channels the same range.
        batch_size: rows per forward pass.
    """
    groups = find(model, samples[:2])
    ranges = _ranges(model, [group.linears[0] for group in groups], samples, batch_size)
    for group in groups:
        linears = [_linear(model, name) for name in group.linears]
        factors = smoothing_factors(ranges[group.linears[0]], [layer.weight for layer in linears], alpha)
        for name, layer in zip(group.linears, linears, strict=True):
            layer.weight.mul_(factors)
            if not group.folded:
                put(model, name, SmoothedLinear(layer, factors))
        if group.folded:
            norm = model.get_submodule(group.norm)
            assert isinstance(norm, nn.LayerNorm)
            norm.weight.div_(factors)
            if norm.bias is not None:
                norm.bias.div_(factors)
    return groups


def smoothing_factors(activations: Tensor, weights: list[Tensor], alpha: float) -> Tensor:
    """``max|X_j|^α / max|W_j|^(1 − α)`` of each channel ``(in,)``.

    Args:
        activations: ``max|X_j|`` ``(in,)``.
        weights: ``(out, in)`` of every layer that reads the channels.
        alpha: in [0, 1].
    """
    used = torch.stack([weight.detach().abs().amax(0) for weight in weights]).amax(0).clamp_min(LEAST)
    return activations.to(used).clamp_min(LEAST).pow(alpha) / used.pow(1 - alpha)


def find(model: nn.Module, example: Tensor) -> list[Smoothed]:
    """Layer norms with the linear layers that read their outputs."""
    wiring = Wiring(model, example)
    found = []
    for node, norm in wiring.layers([aten.layer_norm.default]):
        module = model.get_submodule(norm)
        linears, others = _readers(wiring, node)
        exact = [name for name in linears if type(model.get_submodule(name)) is nn.Linear]
        if not exact or type(module) is not nn.LayerNorm or len(module.normalized_shape) != 1:
            continue
        found.append(Smoothed(norm, tuple(exact), not others and len(exact) == len(linears)))
    return found


def _readers(wiring: Wiring, node: Node) -> tuple[list[str], bool]:
    """Linear layers that read a value, and whether anything else does."""
    linears: list[str] = []
    others = False
    for reader in node.users:
        name = wiring.layer(reader) if reader.target is aten.linear.default and reader.args[0] is node else None
        if name is not None:
            linears.append(name)
        elif reader.target in PASSING:
            more, beyond = _readers(wiring, reader)
            linears += more
            others = others or beyond
        else:
            others = True
    return linears, others


def _ranges(model: nn.Module, layers: list[str], samples: Tensor, batch_size: int) -> dict[str, Tensor]:
    """``max|X_j|`` of the input of each layer ``(in,)``."""
    seen: dict[str, Tensor] = {}

    def keep(name: str) -> Hook:
        def look(x: Tensor, _output: Tensor) -> None:
            most = x.abs().reshape(-1, x.shape[-1]).amax(0)
            seen[name] = torch.maximum(seen[name], most) if name in seen else most

        return look

    watch(model, {name: keep(name) for name in layers}, samples, batch_size)
    return seen


def _linear(model: nn.Module, name: str) -> nn.Linear:
    layer = model.get_submodule(name)
    assert isinstance(layer, nn.Linear)
    return layer
