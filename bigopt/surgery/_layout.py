"""Where channels lie behind concatenations and flattenings, from the shapes that tracing saw.

Torch-pruning infers both from the widths of the layers around, which fails where the reader of a concatenation has a
multiple of its channels (a flattening in between), and where an input has no weights behind it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.overrides import TorchFunctionMode


class Layout(TorchFunctionMode):
    """Notes concatenations and flattenings while a model runs inside of ``with``.

    Attributes:
        joins: by backward node, the dimension that was concatenated, the inputs' sizes there, and the output's shape.
        flattened: by backward node, the shape ``(N, C, …)`` that became ``(N, C·…)``.
        moved: backward nodes of other functions that changed one of the first two sizes, and whether on images.
    """

    def __init__(self) -> None:
        super().__init__()
        self.joins: dict[Any, tuple[int, list[int], tuple[int, ...]]] = {}
        self.flattened: dict[Any, tuple[int, ...]] = {}
        self.moved: dict[Any, bool] = {}

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Runs the function and notes what it did to the shape."""
        output = func(*args, **(kwargs or {}))
        node = getattr(output, "grad_fn", None) if isinstance(output, Tensor) else None
        given = args[0] if args else next(iter((kwargs or {}).values()), None)
        if node is None:
            return output
        if isinstance(given, tuple | list) and node.name().startswith("CatBackward"):
            saved = node._saved_dim  # unsigned, so that -1 is the largest number
            dim = (saved - 2**64 if saved >= 2**63 else saved) % output.ndim
            self.joins[node] = dim, [tensor.shape[dim] for tensor in given], tuple(output.shape)
        elif isinstance(given, Tensor) and given.ndim > 2 and output.shape == (len(given), math.prod(given.shape[1:])):
            self.flattened[node] = tuple(given.shape)
        elif isinstance(given, Tensor) and given.shape[:2] != output.shape[:2] and given.ndim >= 2:
            if sorted(given.shape) != sorted(output.shape):  # not just another order
                self.moved[node] = given.ndim == output.ndim == 4
        return output

    def apply(self, graph: Any) -> bool:
        """Tells a dependency graph what was seen, in place of what it inferred.

        Args:
            graph: torch-pruning's ``DependencyGraph`` of the model that ran.

        Returns:
            whether every index is known now; False where the graph has operations whose indices remain inferred.
        """
        from torch_pruning.ops import OPTYPE

        known = True
        for node in graph.module2node.values():
            if node.type == OPTYPE.CONCAT:
                known &= self._join(graph, node)
            elif node.type == OPTYPE.RESHAPE and node.grad_fn in self.flattened:
                known &= self._flatten(graph, node)
            elif node.type == OPTYPE.RESHAPE:
                known &= node.grad_fn not in self.moved
            elif node.type == OPTYPE.ELEMENTWISE:  # what torch-pruning takes for one
                known &= not self.moved.get(node.grad_fn, False)
            else:
                known &= node.type not in (OPTYPE.SPLIT, OPTYPE.SLICE, OPTYPE.UNBIND)
        return known

    def _join(self, graph: Any, node: Any) -> bool:
        from torch_pruning.dependency import shape_infer

        dim, sizes, shape = self.joins.get(node.grad_fn, (0, [], ()))
        given = [
            source is not None and "AccumulateGrad" not in source.name() for source, _ in node.grad_fn.next_functions
        ]
        if len(shape) not in (2, 3, 4) or len(given) != len(sizes) or sum(given) != len(node.inputs):
            return False
        places = [place for place, one in enumerate(given) if one]
        behind = [shape_infer.infer_channels_between(graph, one, node) for one in node.inputs]
        exact = behind == [sizes[place] for place in places]
        if len(shape) == 3:  # (N, C, L) or (N, L, C): the layers before tell
            elsewhere = all(channels == shape[3 - dim] for channels in behind)
            if exact == elsewhere:
                return False
        else:
            elsewhere = dim != 1
        node.enable_index_mapping = False  # torch-pruning's own inference
        if elsewhere:
            return True
        node.module.concat_sizes = list(sizes)
        into, out_of = list(node.dependencies), {id(one): list(one.dependencies) for one in node.inputs}
        for one, place in zip(node.inputs, places, strict=True):
            for dependencies, target, inwards in ((into, one, True), (out_of[id(one)], node, False)):
                found = next(number for number, each in enumerate(dependencies) if each.target is target)
                # The same input may come several times: each of its dependencies is used once.
                dependencies.pop(found).index_mapping[1] = _Shift(node.module, place, inwards)
        return exact and len(places) == len(sizes)

    def _flatten(self, graph: Any, node: Any) -> bool:
        from torch_pruning.dependency import shape_infer
        from torch_pruning.ops import OPTYPE

        shape = self.flattened[node.grad_fn]
        if len(node.inputs) != 1:
            return False
        given = node.inputs[0]
        channels = shape_infer.infer_out_channels_recursively(graph, given, [0])
        if len(shape) != 4 and (channels != shape[1] or channels == shape[-1]):
            return False  # (N, L, C), or it cannot be told
        node.type = OPTYPE.ELEMENTWISE  # torch-pruning's own inference is left out
        stride = math.prod(shape[2:])
        for dependencies, target, inwards in ((node.dependencies, given, True), (given.dependencies, node, False)):
            for one in dependencies:
                if one.target is target:
                    one.index_mapping[0] = _Stretch(stride, inwards)
        return channels is None or channels == shape[1]


@dataclass(frozen=True)
class _Shift:
    """Channels of one input of a concatenation in terms of the whole, or back.

    Attributes:
        join: torch-pruning's operation, which keeps the sizes of its inputs as channels go.
        place: which input.
        inwards: from the whole to the input; channels of the other inputs are dropped.
    """

    join: Any
    place: int
    inwards: bool

    def __call__(self, index: list[Any]) -> list[Any]:
        """Torch-pruning's index pairs (``idx``, ``root_idx``), moved."""
        sizes = self.join.concat_sizes
        start = sum(sizes[: self.place])
        if not self.inwards:
            return [one._replace(idx=one.idx + start) for one in index]
        return [one._replace(idx=one.idx - start) for one in index if start <= one.idx < start + sizes[self.place]]


@dataclass(frozen=True)
class _Stretch:
    """Channels in terms of the features that they are flattened to, ``stride`` for each, or back."""

    stride: int
    inwards: bool

    def __call__(self, index: list[Any]) -> list[Any]:
        """Torch-pruning's index pairs (``idx``, ``root_idx``), multiplied; in order."""
        if self.inwards:
            return list(dict.fromkeys(one._replace(idx=one.idx // self.stride) for one in index))
        return [one._replace(idx=one.idx * self.stride + place) for one in index for place in range(self.stride)]
