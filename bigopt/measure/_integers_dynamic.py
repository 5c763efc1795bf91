"""Layers whose inputs are quantized over the range that they have in each batch."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from bigopt.measure._onnx_edit import Edit
from bigopt.measure._onnx_graph import attribute

if TYPE_CHECKING:
    from onnx import NodeProto


def integer_products(edit: Edit) -> None:
    """Writes such inputs as ``DynamicQuantizeLinear``, and the layers that read them as integer products."""
    from onnx import helper

    for node in list(edit.nodes):
        if node.op_type != "QuantizeLinear" or not _over_own_range(edit, node):
            continue
        quantized = helper.make_node(
            "DynamicQuantizeLinear", [node.input[0]], [node.output[0], edit.name(), edit.name()]
        )
        edit.put(node, [quantized])
        for reader in list(edit.readers[node.output[0]]):
            if reader.op_type == "DequantizeLinear":
                reader.input[1:] = quantized.output[1:]
        edit.refresh()
        for reader in list(edit.readers[node.output[0]]):
            for product in list(edit.readers[reader.output[0]]) if reader.op_type == "DequantizeLinear" else []:
                _as_integers(edit, product, quantized)


def _over_own_range(edit: Edit, node: NodeProto) -> bool:
    """Whether a scale is computed from the least and the largest of the values that it is for."""
    found = set()
    waiting = [node.input[1]]
    while waiting:
        maker = edit.maker.get(waiting.pop())
        if maker is None:
            continue
        if maker.op_type in ("ReduceMin", "ReduceMax"):
            found.add((maker.op_type, maker.input[0]))
        else:
            waiting.extend(maker.input)
    return found == {("ReduceMin", node.input[0]), ("ReduceMax", node.input[0])}


def _as_integers(edit: Edit, product: NodeProto, quantized: NodeProto) -> None:
    """Multiplies integers and scales the sums; a product that has no such kernel stays as it is."""
    weight = edit.maker.get(product.input[1]) if len(product.input) > 1 else None
    if weight is None or weight.op_type != "DequantizeLinear" or edit.maker.get(product.input[0]) is weight:
        return
    integers, scale = edit.array(weight.input[0]), edit.array(weight.input[1])
    zero = edit.array(weight.input[2]) if len(weight.input) > 2 and weight.input[2] else None
    zero = np.zeros(1, np.int8) if zero is None else zero.reshape(-1)
    if integers is None or scale is None:
        return
    channel = attribute(weight, "axis", 1) % integers.ndim
    if product.op_type == "Conv" and (scale.size == 1 or channel == 0) and len(set(zero.tolist())) == 1:
        _convolution(edit, product, quantized, integers, scale, zero)
    elif product.op_type == "MatMul" and integers.ndim == 2 and (scale.size == 1 or channel == 1):
        _matrix(edit, product, quantized, integers, scale, zero)
    elif product.op_type == "Gemm" and attribute(product, "transB", 0) and (scale.size == 1 or channel == 0):
        plain = (attribute(product, "alpha", 1.0), attribute(product, "beta", 1.0), attribute(product, "transA", 0))
        if plain == (1.0, 1.0, 0):
            _matrix(edit, product, quantized, integers.T, scale, zero)


def _convolution(
    edit: Edit, product: NodeProto, quantized: NodeProto, integers: np.ndarray, scale: np.ndarray, zero: np.ndarray
) -> None:
    """Weights are stored unsigned, moved up by as much as they need: of these ONNX Runtime has the faster kernel."""
    offset = next(2 ** (bits - 1) for bits in (2, 4, 8) if -(2 ** (bits - 1)) <= int(integers.min()))
    offset = offset if int(integers.max()) < offset else 128
    stored = edit.store((integers.astype(np.int16) + offset).astype(np.uint8))
    point = edit.store(np.array(int(zero[0]) + offset, np.uint8))
    inputs = [quantized.output[0], stored, quantized.output[2], point]
    sums = edit.node("ConvInteger", inputs)
    sums.attribute.extend(product.attribute)
    shape = (1, -1, *[1] * (integers.ndim - 2))
    _scaled(edit, product, quantized, sums, scale.reshape(shape) if scale.size > 1 else scale.reshape(()), shape)


def _matrix(
    edit: Edit, product: NodeProto, quantized: NodeProto, integers: np.ndarray, scale: np.ndarray, zero: np.ndarray
) -> None:
    points = edit.store((zero if zero.size > 1 else zero.reshape(())).astype(np.int8))
    stored = edit.store(np.ascontiguousarray(integers))
    sums = edit.node("MatMulInteger", [quantized.output[0], stored, quantized.output[2], points])
    _scaled(edit, product, quantized, sums, scale.reshape(-1) if scale.size > 1 else scale.reshape(()), (-1,))


def _scaled(
    edit: Edit,
    product: NodeProto,
    quantized: NodeProto,
    sums: NodeProto,
    scale: np.ndarray,
    shape: tuple[int, ...],
) -> None:
    """``float(sums) · (input scale · weight scales) + bias`` in the place of a product."""
    from onnx import TensorProto

    floats = edit.node("Cast", [sums.output[0]], to=TensorProto.FLOAT)
    scales = edit.node("Mul", [quantized.output[1], edit.store(scale.astype(np.float32))])
    biased = len(product.input) > 2 and product.input[2]
    scaled = edit.node("Mul", [floats.output[0], scales.output[0]], None if biased else product.output[0])
    new = [sums, floats, scales, scaled]
    if biased:
        bias = edit.array(product.input[2])
        if bias is None:
            return
        new.append(edit.node("Add", [scaled.output[0], edit.store(bias.reshape(shape))], product.output[0]))
    edit.put(product, new)
