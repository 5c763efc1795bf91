"""Editing an ONNX graph: values by name, their makers and readers, new nodes in their places."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto

IR_OF_OPSET = {21: 10, 25: 13}
"""Version of the format that an operator set needs at least."""


class Edit:
    """The main graph of a model, being changed; :meth:`done` puts the changes back.

    Attributes:
        nodes: in order of execution.
        stored: initializers by name.
    """

    def __init__(self, model: ModelProto) -> None:
        self.model = model
        self.nodes: list[NodeProto] = list(model.graph.node)
        self.stored = {tensor.name: tensor for tensor in model.graph.initializer}
        self.opset = next((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), 18)
        self._fresh = 0
        self.refresh()

    def refresh(self) -> None:
        """Looks up makers and readers again, after nodes were changed."""
        self.maker = {output: node for node in self.nodes for output in node.output}
        self.readers: defaultdict[str, list[NodeProto]] = defaultdict(list)
        for node in self.nodes:
            for name in node.input:
                self.readers[name].append(node)
        self.outputs = {value.name for value in self.model.graph.output}

    def array(self, name: str) -> np.ndarray | None:
        """A stored or constant value; None for a computed one."""
        from onnx import numpy_helper

        if name in self.stored:
            return numpy_helper.to_array(self.stored[name])
        node = self.maker.get(name)
        if node is None or node.op_type != "Constant":
            return None
        value = next((item for item in node.attribute if item.name == "value"), None)
        if value is not None:
            return numpy_helper.to_array(value.t)
        number = next((item for item in node.attribute if item.name == "value_float"), None)
        return np.array(number.f, np.float32) if number is not None else None

    def store(self, array: np.ndarray, name: str | None = None) -> str:
        """Adds a value, or replaces one."""
        from onnx import numpy_helper

        name = name or self.name()
        self.stored[name] = numpy_helper.from_array(np.array(array, order="C"), name)
        return name

    def name(self) -> str:
        """A name that is not taken."""
        self._fresh += 1
        return f"bigopt_integers_{self._fresh}"

    def node(self, kind: str, inputs: Sequence[str], output: str | None = None, **attributes: Any) -> NodeProto:
        """A new node with one output, not in the graph yet."""
        from onnx import helper

        return helper.make_node(kind, inputs, [output or self.name()], **attributes)

    def put(self, old: NodeProto, new: Sequence[NodeProto]) -> None:
        """Puts nodes in the place of one, and looks everything up again."""
        place = next(position for position, node in enumerate(self.nodes) if node is old)
        self.nodes[place : place + 1] = new
        self.refresh()

    def need(self, opset: int) -> None:
        """Raises the version of the operators. Those that torch writes compute the same in all of them from 18 on."""
        self.opset = max(self.opset, opset)
        for entry in self.model.opset_import:
            if entry.domain in ("", "ai.onnx"):
                entry.version = self.opset
        self.model.ir_version = max(self.model.ir_version, IR_OF_OPSET[opset])

    def can_raise(self) -> bool:
        """Whether the version may be raised: one operator changed its meaning."""
        return not any(node.op_type == "GroupNormalization" for node in self.nodes)

    def done(self) -> None:
        """Writes nodes and initializers back, without what nothing reads."""
        self._drop_unread()
        graph = self.model.graph
        del graph.node[:], graph.initializer[:]
        graph.node.extend(self.nodes)
        graph.initializer.extend(self.stored.values())

    def _drop_unread(self) -> None:
        from bigopt.measure._tidy import graphs

        inner = [node for graph in list(graphs(self.model.graph))[1:] for node in graph.node]
        while True:
            read = self.outputs | {name for node in (*self.nodes, *inner) for name in node.input}
            kept = [node for node in self.nodes if any(output in read for output in node.output)]
            if len(kept) == len(self.nodes):
                break
            self.nodes = kept
        self.stored = {name: tensor for name, tensor in self.stored.items() if name in read}
