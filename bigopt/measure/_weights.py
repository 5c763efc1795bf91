"""The weights of a model in memory: each once, with the value that stands for zero and its width."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.fx import GraphModule, Node
from torch.nn.utils import parametrize

from bigopt.measure._inference import resolve
from bigopt.measure.counts import FLOAT, width_of_range

LOOKING_UP = {
    torch.ops.aten.embedding.default,
    torch.ops.aten.view.default,
    torch.ops.aten.reshape.default,
}


@dataclass(frozen=True)
class Weight:
    """One weight tensor.

    Attributes:
        value: as the forward pass reads it, integers as they are stored.
        zero: the value that stands for zero, broadcastable to ``value``.
        bits: width of an element.
    """

    value: Tensor
    zero: Tensor | int
    bits: int

    def nonzero(self) -> int:
        """Elements that do not stand for zero."""
        return int((self.value != self.zero).sum())


def weights(model: nn.Module) -> list[Weight]:
    """Every weight of a model once: parameters of modules, and of an exported graph what it reads."""
    return list(_walk(model, set()))


def _walk(model: nn.Module, seen: set[int]) -> Iterator[Weight]:
    if isinstance(model, GraphModule) and not _calls_modules(model):
        yield from _read_by_graph(model, seen)
        return
    yield from _own(model, seen)
    for name, child in model.named_children():
        if name != "parametrizations":  # what these compute is seen at the module that uses it
            yield from _walk(child, seen)


def _own(module: nn.Module, seen: set[int]) -> Iterator[Weight]:
    """A module's own weights; masked or reparametrised ones as the forward pass computes them."""
    if parametrize.is_parametrized(module):
        for name in module.parametrizations:  # type: ignore[union-attr]
            value = getattr(module, name)
            yield Weight(value, 0, _width(value))
    for name, parameter in module.named_parameters(recurse=False):
        if _new(parameter, seen):
            mask = getattr(module, f"{name.removesuffix('_orig')}_mask", None) if name.endswith("_orig") else None
            value = parameter if mask is None else parameter * mask
            yield Weight(value, 0, _width(value))


def _read_by_graph(model: GraphModule, seen: set[int]) -> Iterator[Weight]:
    """What a graph reads: parameters, and integers that it dequantizes. Folded originals stay behind, unread."""
    for node in model.graph.nodes:
        tensor = resolve(model, str(node.target)) if node.op == "get_attr" and node.users else None
        if tensor is None:
            continue
        reader = _dequantizer(node)
        if reader is not None and _new(tensor, seen):
            yield Weight(tensor, _zero_point(model, reader, tensor), width_of_range(reader.args) or _width(tensor))
        elif reader is None and isinstance(tensor, nn.Parameter) and _new(tensor, seen):
            yield Weight(tensor, 0, _width(tensor))


def _calls_modules(model: GraphModule) -> bool:
    return any(node.op == "call_module" and node.target != "_guards_fn" for node in model.graph.nodes)


def _dequantizer(node: Node) -> Node | None:
    """The operator that turns a stored tensor into numbers, maybe after rows of it were looked up."""
    for user in node.users:
        if user.op != "call_function" or user.args[0] is not node:
            continue
        if _dequantizes(user):
            return user
        found = _dequantizer(user) if user.target in LOOKING_UP else None
        if found is not None:
            return found
    return None


def _dequantizes(node: Node) -> bool:
    return node.op == "call_function" and "dequantize" in str(node.target)


def _zero_point(model: GraphModule, reader: Node, tensor: Tensor) -> Tensor | int:
    """The integer that stands for zero, shaped to compare with the weight; 0 where the graph computes it."""
    point = reader.args[2]
    if not isinstance(point, Node):
        return point if isinstance(point, int) else 0
    found = resolve(model, str(point.target)) if point.op == "get_attr" else None
    if found is None:
        return 0
    axis = reader.args[3] if "per_channel" in str(reader.target) else None
    if found.numel() > 1 and isinstance(axis, int):
        return found.reshape([-1 if place == axis % tensor.ndim else 1 for place in range(tensor.ndim)])
    return found if found.numel() == 1 else 0


def _width(tensor: Tensor) -> int:
    return FLOAT if tensor.is_floating_point() else torch.iinfo(tensor.dtype).bits


def _new(tensor: Tensor, seen: set[int]) -> bool:
    if id(tensor) in seen:
        return False
    seen.add(id(tensor))
    return True
