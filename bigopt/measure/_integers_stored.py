"""Integer weights that meet float activations."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from bigopt.measure._onnx_edit import Edit
from bigopt.measure._onnx_graph import attribute

if TYPE_CHECKING:
    from onnx import NodeProto

PRODUCTS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
MOVED = ("Reshape", "Transpose", "Squeeze", "Unsqueeze", "Identity")


def unfold_weights(edit: Edit) -> None:
    """Writes ``DequantizeLinear`` of a stored weight as ``(cast(q) − z) · s`` where the other factor is a float.

    The same for rows that are looked up in a stored table.
    """
    from onnx import TensorProto

    for node in list(edit.nodes):
        if node.op_type != "DequantizeLinear":
            continue
        integers, scale = edit.array(node.input[0]), edit.array(node.input[1])
        if integers is None:
            _unfold_rows(edit, node, scale)
            continue
        if not _meets_floats(edit, node):
            continue
        zero = edit.array(node.input[2]) if len(node.input) > 2 and node.input[2] else None
        if scale is None or attribute(node, "block_size", 0):
            continue
        shape = [1] * integers.ndim
        if scale.size > 1:
            shape[attribute(node, "axis", 1)] = -1
        scale = scale.astype(np.float32).reshape(shape if scale.size > 1 else ())
        new = [edit.node("Cast", [node.input[0]], to=TensorProto.FLOAT)]
        if zero is not None and zero.any():
            points = edit.store(zero.astype(np.float32).reshape(shape if zero.size > 1 else ()))
            new.append(edit.node("Sub", [new[-1].output[0], points]))
        new.append(edit.node("Mul", [new[-1].output[0], edit.store(scale)], node.output[0]))
        edit.put(node, new)


def _unfold_rows(edit: Edit, node: NodeProto, scale: np.ndarray | None) -> None:
    from onnx import TensorProto

    lookup = edit.maker.get(node.input[0])
    zero = edit.array(node.input[2]) if len(node.input) > 2 and node.input[2] else np.zeros(1)
    if lookup is None or lookup.op_type != "Gather" or edit.array(lookup.input[0]) is None:
        return
    if scale is None or scale.size > 1 or zero is None or zero.any():
        return
    plain = float(scale.reshape(())) == 1.0
    cast = edit.node("Cast", [node.input[0]], node.output[0] if plain else None, to=TensorProto.FLOAT)
    scaled = [] if plain else [edit.node("Mul", [cast.output[0], node.input[1]], node.output[0])]
    edit.put(node, [cast, *scaled])


def split_biases(edit: Edit) -> None:
    """Adds the bias of an integer ``Gemm`` that gives floats on its own: with it, ONNX Runtime would not fuse it."""
    for node in list(edit.nodes):
        if node.op_type != "Gemm" or len(node.input) < 3 or not all(_integer(edit, name) for name in node.input[:2]):
            continue
        bias = edit.array(node.input[2])
        if bias is None or attribute(node, "beta", 1.0) != 1.0 or _quantized_after(edit, node.output[0]):
            continue
        output = node.output[0]
        product = edit.node("Gemm", node.input[:2])
        product.attribute.extend(node.attribute)
        edit.put(node, [product, edit.node("Add", [product.output[0], node.input[2]], output)])


def _quantized_after(edit: Edit, name: str) -> bool:
    """Whether all readers quantize a value, maybe after a clipping that a kernel computes as well."""
    readers = edit.readers[name]
    return bool(readers) and all(
        reader.op_type == "QuantizeLinear"
        or (reader.op_type in ("Relu", "Clip") and _quantized_after(edit, reader.output[0]))
        for reader in readers
    )


def _meets_floats(edit: Edit, node: NodeProto) -> bool:
    """Whether every reader multiplies the weight with something that is no integer, or cannot do so as integers."""
    reshaped = False
    readers = [(node.output[0], reader) for reader in edit.readers[node.output[0]]]
    while any(reader.op_type in MOVED for _, reader in readers):
        moved = next(pair for pair in readers if pair[1].op_type in MOVED)
        readers.remove(moved)
        reshaped |= moved[1].op_type == "Reshape"
        output = moved[1].output[0]
        readers.extend((output, reader) for reader in edit.readers[output])
    return bool(readers) and all(
        reader.op_type in PRODUCTS and (reshaped or not _integer(edit, next(i for i in reader.input if i != name)))
        for name, reader in readers
    )


def _integer(edit: Edit, name: str) -> bool:
    """Whether a value is dequantized."""
    while True:
        maker = edit.maker.get(name)
        if maker is None:
            return False
        if maker.op_type == "DequantizeLinear":
            return True
        if maker.op_type not in (*MOVED, "Flatten", "MaxPool", "Relu"):
            return False
        name = maker.input[0]
