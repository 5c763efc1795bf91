"""Layers in a row whose channels can be rescaled, found in the graph of an eager model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from torch import Tensor, nn
from torch.fx import Node

from bigopt_plugins.compression.quantization._wiring import CONVOLUTIONS, WEIGHTED, Wiring, aten

POSITIVE = {aten.relu.default, aten.relu_.default, aten.leaky_relu.default, aten.leaky_relu_.default}
"""f(s·x) = s·f(x) for every s > 0."""
CLIPPED = {aten.hardtanh.default, aten.hardtanh_.default, aten.relu6.default, aten.relu6_.default}
PASSING = {aten.dropout.default, aten.alias.default, aten.clone.default, aten.contiguous.default}
POOLING = {aten.max_pool2d.default, aten.avg_pool2d.default, aten.adaptive_avg_pool2d.default, aten.mean.dim}
RESHAPING = {aten.flatten.using_ints, aten.view.default, aten.reshape.default}
KNOWN = (nn.Conv1d, nn.Conv2d, nn.Linear)
"""Exact types: a subclass may compute something else with its weight."""

Clip = tuple[str, tuple[int, ...]]


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


def chains_of(model: nn.Module, wiring: Wiring, left: dict[str, str]) -> Iterator[Chain]:
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
    weight = weight_of(layer)
    return isinstance(layer, nn.Conv1d | nn.Conv2d) and layer.groups == layer.in_channels == len(weight)


def weight_of(layer: nn.Module) -> Tensor:
    """A layer's weight."""
    weight = layer.weight
    assert isinstance(weight, Tensor)
    return weight
