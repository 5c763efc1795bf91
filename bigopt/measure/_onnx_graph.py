"""Looking things up in an ONNX graph: who computes a value, how wide it is, which stored tensor it comes from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bigopt.measure.counts import FLOAT

if TYPE_CHECKING:
    import numpy as np
    from onnx import ModelProto, NodeProto, TensorProto

REARRANGING = {"Transpose", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Identity", "MaxPool", "Relu", "Clip", "Cast"}
"""Operators after which an integer is still as wide as before."""


@dataclass(frozen=True)
class Stored:
    """A stored tensor, and what turns its integers into numbers: an operator, or a zero point that is taken off."""

    tensor: TensorProto
    dequantize: NodeProto | None
    zero: str | None = None


class OnnxGraph:
    """The main graph of an ONNX file.

    Args:
        path: the file.
    """

    def __init__(self, path: Path) -> None:
        import onnx

        self.model: ModelProto = onnx.load(path)
        self.nodes: Sequence[NodeProto] = self.model.graph.node
        self.stored: dict[str, TensorProto] = {tensor.name: tensor for tensor in self.model.graph.initializer}
        self._maker = {output: node for node in self.nodes for output in node.output}

    def source(self, name: str) -> Stored | None:
        """The stored tensor that a value is computed from by rearranging and dequantizing only.

        Dequantizing is also ``(cast(integers) − stored) · stored``, which runtimes compute when they load the file.
        """
        dequantize, zero, scaled = None, None, False
        while name not in self.stored:
            maker = self._maker.get(name)
            if maker is not None and maker.op_type in ("Mul", "Sub") and maker.input[1] in self.stored:
                scaled = True
                zero = maker.input[1] if maker.op_type == "Sub" else zero
            elif maker is None or maker.op_type not in REARRANGING | {"DequantizeLinear"}:
                return None
            elif maker.op_type == "DequantizeLinear":
                dequantize = maker
            name = maker.input[0]
        if scaled and width_of_type(self.stored[name].data_type) == FLOAT:
            return None
        return Stored(self.stored[name], dequantize, zero)

    def width(self, name: str) -> int:
        """Bits of a value: of the integers behind it where it is quantized, else of a float."""
        seen_integers = False
        while True:
            if name in self.stored:
                return width_of_type(self.stored[name].data_type)
            maker = self._maker.get(name)
            if maker is None:
                return FLOAT
            if maker.op_type in ("QuantizeLinear", "DynamicQuantizeLinear"):
                return self._quantized_width(maker)
            if maker.op_type in ("Mul", "Sub"):
                stored = self.source(name)
                return width_of_type(stored.tensor.data_type) if stored is not None else FLOAT
            if maker.op_type.startswith("QLinear"):
                return 8 if seen_integers else FLOAT
            if maker.op_type not in REARRANGING | {"DequantizeLinear"}:
                return FLOAT
            seen_integers |= maker.op_type == "DequantizeLinear"
            name = maker.input[0]

    def array(self, stored: Stored) -> tuple[np.ndarray, np.ndarray | int]:
        """A stored tensor's elements, and the value among them that stands for zero, ready to be compared."""
        from onnx import numpy_helper

        values = self._plain(numpy_helper.to_array(stored.tensor))
        node = stored.dequantize
        if stored.zero is not None:
            return values, self._plain(numpy_helper.to_array(self.stored[stored.zero]))
        if node is None or len(node.input) < 3 or node.input[2] not in self.stored:
            return values, 0
        point = self._plain(numpy_helper.to_array(self.stored[node.input[2]]))
        if point.ndim == 1 and point.size > 1:
            axis = attribute(node, "axis", 1) % values.ndim
            point = point.reshape([-1 if place == axis else 1 for place in range(values.ndim)])
        return values, point if point.size == 1 or point.ndim == values.ndim else 0

    @staticmethod
    def _plain(values: np.ndarray) -> np.ndarray:
        """Integers of 2 and 4 bits as 8-bit ones, which numpy can compare."""
        return values if values.dtype.kind in "fiub" else values.astype("int8" if values.itemsize == 1 else "float32")

    def _quantized_width(self, node: NodeProto) -> int:
        if len(node.input) > 2 and node.input[2] in self.stored:
            return width_of_type(self.stored[node.input[2]].data_type)
        asked = attribute(node, "output_dtype", 0)
        return width_of_type(asked) if asked else 8


def attribute(node: NodeProto, name: str, default: Any) -> Any:
    """An operator's attribute, or the default where it has none."""
    from onnx import helper

    return next((helper.get_attribute_value(item) for item in node.attribute if item.name == name), default)


def width_of_type(data_type: int) -> int:
    """Bits of an ONNX element type, of which some share a byte."""
    from onnx import TensorProto

    name = TensorProto.DataType.Name(data_type)  # type: ignore[arg-type]
    digits = "".join(character for character in name.partition("E")[0] if character.isdigit())
    return int(digits) if digits else {"FLOAT": 32, "DOUBLE": 64}.get(name, 8)
