"""Cross-layer equalisation: channels of neighbouring layers rescaled until their weights span the same range.

One scale per tensor wastes most of its steps on channels whose weights are far smaller than the largest. A positive
factor on a channel passes through a ReLU, so it can be moved from a layer into the next one without a change of the
outputs (Nagel et al. 2019, arXiv:1906.04721, section 4.1).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.fx import Node

from bigopt_plugins.compression.quantization._wiring import CONVOLUTIONS, WEIGHTED, Wiring, aten, put

POSITIVE = {aten.relu.default, aten.relu_.default, aten.leaky_relu.default, aten.leaky_relu_.default}
"""f(s·x) = s·f(x) for every s > 0."""
CLIPPED = {aten.hardtanh.default, aten.hardtanh_.default, aten.relu6.default, aten.relu6_.default}
PASSING = {aten.dropout.default, aten.alias.default, aten.clone.default, aten.contiguous.default}
POOLING = {aten.max_pool2d.default, aten.avg_pool2d.default, aten.adaptive_avg_pool2d.default, aten.mean.dim}
RESHAPING = {aten.flatten.using_ints, aten.view.default, aten.reshape.default}
KNOWN = (nn.Conv1d, nn.Conv2d, nn.Linear)
"""Exact types: a subclass may compute something else with its weight."""
DEAD = 1e-4
"""Channels whose range is under this share of the layer's largest keep it: their factors would blow up the biases."""


Clip = tuple[str, tuple[int, ...]]


class ChannelClip(nn.Module):
    """ReLU with an upper limit per channel, which a ReLU6 becomes when its channels are rescaled.

    Args:
        limit: ``(C, 1, 1)`` for images ``(N, C, H, W)``, ``(C,)`` for features ``(N, C)``.
    """

    limit: Tensor

    def __init__(self, limit: Tensor) -> None:
        super().__init__()
        self.register_buffer("limit", limit)

    def forward(self, x: Tensor) -> Tensor:
        """``min(max(x, 0), limit)``, same shape."""
        return torch.minimum(torch.relu(x), self.limit)


@dataclass
class Chain:
    """Layers in a row of which each is the only reader of the one before; all but the ends are depthwise.

    Attributes:
        layers: their names.
        clips: for each layer but the last the module behind it that clips at 6, with the shape that a vector over
            channels has there; None without one.
    """

    layers: list[str]
    clips: list[Clip | None] = field(default_factory=list)


@dataclass
class Equalised:
    """What was done.

    Attributes:
        chains: layers that were equalised together.
        clips: names of the ReLU6 that became a clip per channel.
        left: layers that end a chain for a reason that a user could change, with the reason.
    """

    chains: list[tuple[str, ...]] = field(default_factory=list)
    clips: list[str] = field(default_factory=list)
    left: dict[str, str] = field(default_factory=dict)


@torch.no_grad()
def equalise(
    model: nn.Module, example: Tensor, *, sweeps: int = 100, tolerance: float = 1e-6, ignore: Sequence[str] = ()
) -> Equalised:
    """Gives each channel the same weight range in all layers of its chain; in place, with the same outputs.

    With ranges ``r_k`` of channel i in the layers of a chain (rows of the first, columns of the last, both of a
    depthwise one between them), layer k is multiplied by ``(Π r)^(1/K) / r_k``; for two layers that is eq. 10 of the
    paper. The rows of one chain are the columns of the next, so sweeps go over all chains until nothing moves.
    Fold batch norms first; chains end at everything that has a second reader, such as a residual addition.

    Args:
        model: eager.
        example: raw input ``(N, …)``.
        sweeps: over all chains, at most.
        tolerance: largest ``|log factor|`` that counts as no movement.
        ignore: names of layers that stay as they are.
    """
    wiring = Wiring(model, example)
    result = Equalised()
    chains = [chain for chain in _chains(model, wiring, result.left) if not set(chain.layers) & set(ignore)]
    for chain in chains:
        result.chains.append(tuple(chain.layers))
        for layer, clip in zip(chain.layers, chain.clips, strict=False):
            if clip is not None:
                weight = _weight(model.get_submodule(layer))
                put(model, clip[0], ChannelClip(weight.new_full((len(weight),), 6.0).reshape(clip[1])))
                result.clips.append(clip[0])
    for _ in range(sweeps):
        if max([_sweep(model, chain) for chain in chains], default=0.0) <= tolerance:
            break
    return result


def _sweep(model: nn.Module, chain: Chain) -> float:
    """Equalises one chain; gives the largest ``|log factor|``."""
    layers = [model.get_submodule(name) for name in chain.layers]
    channels = len(_weight(layers[0]))
    ranges = torch.stack(
        [row_ranges(layers[0])] + [row_ranges(layer) for layer in layers[1:-1]] + [column_ranges(layers[-1], channels)]
    ).double()
    alive = (ranges > DEAD * ranges.amax(1, keepdim=True)).all(0) & (ranges > 0).all(0)
    mean = ranges.clamp_min(torch.finfo(torch.float64).tiny).log().mean(0).exp()
    factors = torch.where(alive, mean / ranges, 1.0)
    reached = factors.cumprod(0)
    for number, layer in enumerate(layers[:-1]):
        weight = _weight(layer)
        weight.mul_(_rows(factors[number], weight))
        if isinstance(layer.bias, Tensor):
            layer.bias.mul_(reached[number].to(layer.bias.dtype))
        clip = chain.clips[number]
        if clip is not None:
            limit = model.get_submodule(clip[0]).limit
            assert isinstance(limit, Tensor)
            limit.mul_(reached[number].to(limit.dtype).reshape(limit.shape))
    # what the earlier layers really gained, so that rounding does not change the outputs over many sweeps
    _scale_columns(layers[-1], reached[-2].reciprocal())
    return float(factors.log().abs().max())


def row_ranges(layer: nn.Module) -> Tensor:
    """``max |w|`` of each output channel ``(out,)``."""
    return _weight(layer).detach().abs().flatten(1).amax(1)


def column_ranges(layer: nn.Module, channels: int) -> Tensor:
    """``max |w|`` over what reads each input channel ``(channels,)``.

    Args:
        layer: a convolution (grouped or not), or a linear layer, which may read each channel in several places.
        channels: number of channels in front of the layer.
    """
    return _by_input(layer, channels).abs().amax((1, 3)).flatten()


def _by_input(layer: nn.Module, channels: int) -> Tensor:
    """The weight as ``(groups, outputs of a group, channels of a group, …)``, one trailing dimension; a view."""
    weight = _weight(layer).detach()
    groups = int(getattr(layer, "groups", 1))  # type: ignore[arg-type]
    return weight.reshape(groups, len(weight) // groups, channels // groups, -1)


def _scale_columns(layer: nn.Module, factors: Tensor) -> None:
    view = _by_input(layer, len(factors))
    view.mul_(factors.to(view.dtype).reshape(view.shape[0], 1, view.shape[2], 1))


def _rows(factors: Tensor, weight: Tensor) -> Tensor:
    return factors.to(weight.dtype).reshape(-1, *[1] * (weight.ndim - 1))


def _weight(layer: nn.Module) -> Tensor:
    weight = layer.weight
    assert isinstance(weight, Tensor)
    return weight


def _chains(model: nn.Module, wiring: Wiring, left: dict[str, str]) -> Iterator[Chain]:
    """Chains of at least two layers, each starting at a layer that is not in the middle of one."""
    begun: set[str] = set()
    for node, name in wiring.layers(WEIGHTED):
        if name in begun or type(model.get_submodule(name)) not in KNOWN:
            continue
        chain = Chain([name])
        step = _next(model, wiring, node, left)
        while step is not None:
            node, clips = step
            last = wiring.layer(node)
            assert last is not None
            chain.layers.append(last)
            chain.clips.append(clips)
            if not _depthwise(model.get_submodule(last)):
                break
            step = _next(model, wiring, node, left)
            begun.add(last)
        if len(chain.layers) > 1:
            yield chain


def _next(model: nn.Module, wiring: Wiring, node: Node, left: dict[str, str]) -> tuple[Node, Clip | None] | None:
    """The layer that alone reads this one's output through operations that a factor passes, and a clip on the way."""
    name = wiring.layer(node)
    assert name is not None
    spatial = node.target in CONVOLUTIONS  # channels are dimension 1, else the last one
    clip: Clip | None = None
    value = node
    while len(value.users) == 1:
        reader = next(iter(value.users))
        if reader.target in WEIGHTED:
            return (reader, clip) if _reads_channels(model, wiring, value, reader, spatial) else None
        if reader.target in CLIPPED:
            module = wiring.alone(reader)
            shape = _channel_shape(reader, node, spatial)
            if module is None or shape is None or clip is not None or not _is_relu6(model.get_submodule(module)):
                left[name] = "a clipped activation behind it is no ReLU6 module of its own"
                return None
            clip = (module, shape)
        elif reader.target in POOLING:
            if not spatial or (reader.target is aten.mean.dim and not _over_space(reader)):
                return None
        elif reader.target in RESHAPING:
            before, after = value.meta["val"].shape, reader.meta["val"].shape
            if not spatial or tuple(after) != (before[0], before[1:].numel()):
                return None
        elif reader.target not in POSITIVE | PASSING:
            return None
        value = reader
    return None


def _reads_channels(model: nn.Module, wiring: Wiring, value: Node, reader: Node, spatial: bool) -> bool:
    """Whether a layer reads this value along its channels."""
    following = wiring.layer(reader)
    if reader.args[0] is not value or following is None or type(model.get_submodule(following)) not in KNOWN:
        return False
    if reader.target in CONVOLUTIONS:
        return spatial
    return not spatial or value.meta["val"].ndim == 2


def _channel_shape(node: Node, layer: Node, spatial: bool) -> tuple[int, ...] | None:
    """Shape that a vector over the layer's channels has at this node; None where they are no dimension any more."""
    shape, channels = node.meta["val"].shape, layer.meta["val"].shape[1 if spatial else -1]
    if not spatial:
        return (-1,)
    return (-1, *[1] * (len(shape) - 2)) if shape[1] == channels else None


def _over_space(node: Node) -> bool:
    dims, rank = node.args[1], node.args[0].meta["val"].ndim  # type: ignore[union-attr]
    return isinstance(dims, Sequence) and all(int(dim) % rank >= 2 for dim in dims)  # type: ignore[arg-type,call-overload]


def _is_relu6(module: nn.Module) -> bool:
    return isinstance(module, nn.Hardtanh) and (module.min_val, module.max_val) == (0.0, 6.0)


def _depthwise(layer: nn.Module) -> bool:
    weight = _weight(layer)
    return isinstance(layer, nn.Conv1d | nn.Conv2d) and layer.groups == layer.in_channels == len(weight)
