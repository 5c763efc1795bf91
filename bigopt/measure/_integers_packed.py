"""Integers of 2 and 4 bits, several to a byte."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from bigopt.measure._onnx_edit import Edit

if TYPE_CHECKING:
    from onnx import NodeProto

ONLY_MOVED = {"DequantizeLinear", "Cast", "Gather", "ConvInteger", "MatMulInteger", "Reshape", "Transpose"}
"""Operators that read a whole tensor of integers as their first or second input."""
LEAST_SAVED = 64
"""Bytes; a cast takes about half as many."""


def pack(edit: Edit) -> None:
    """Stores every tensor of bytes that fits in 4 bits (ONNX 21) or 2 (ONNX 25), and casts it back to bytes.

    ONNX Runtime casts once, when it loads the file, so that kernels are the same as for bytes.
    """
    from onnx import TensorProto

    if not edit.can_raise():
        return
    for name, tensor in list(edit.stored.items()):
        if tensor.data_type not in (TensorProto.INT8, TensorProto.UINT8) or not _whole(edit, name):
            continue
        values = edit.array(name)
        assert values is not None
        signed = tensor.data_type == TensorProto.INT8
        bits = _width(values, signed)
        if bits == 8 or values.size - values.size * bits // 8 < LEAST_SAVED:
            continue
        edit.need({4: 21, 2: 25}[bits])
        packed = edit.name()
        edit.stored[packed] = TensorProto(
            name=packed,
            data_type=TensorProto.DataType.Value(f"{'INT' if signed else 'UINT'}{bits}"),
            dims=values.shape,
            raw_data=packed_bytes(values, bits),
        )
        _read_packed(edit, name, packed, tensor.data_type)


def packed_bytes(values: np.ndarray, bits: int) -> bytes:
    """Integers in two's complement, the first in the lowest bits of a byte, as ONNX lays them out."""
    each = 8 // bits
    flat = (values.astype(np.int16).reshape(-1) & (2**bits - 1)).astype(np.uint8)
    flat = np.concatenate([flat, np.zeros(-len(flat) % each, np.uint8)]).reshape(-1, each)
    packed: bytes = np.bitwise_or.reduce(flat << (np.arange(each, dtype=np.uint8) * bits), axis=1).tobytes()
    return packed


def _width(values: np.ndarray, signed: bool) -> int:
    low, high = (int(values.min()), int(values.max())) if values.size else (0, 0)
    for bits in (2, 4):
        least, most = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
        if least <= low and high <= most:
            return bits
    return 8


def _whole(edit: Edit, name: str) -> bool:
    """Whether a tensor is only read as a weight, never as a zero point."""
    readers = edit.readers[name]
    return bool(readers) and all(
        node.op_type in ONLY_MOVED and name not in node.input[2:] and name not in node.input[:1] * _products(node)
        for node in readers
    )


def _products(node: NodeProto) -> int:
    """1 for operators whose first input is an activation."""
    return int(node.op_type in ("ConvInteger", "MatMulInteger"))


def _read_packed(edit: Edit, name: str, packed: str, data_type: int) -> None:
    """Lets readers have the packed tensor: a cast takes it as it is, the others get it as bytes again."""
    casts = [node for node in edit.readers[name] if node.op_type == "Cast"]
    for node in casts:
        node.input[0] = packed
    others = [node for node in edit.readers[name] if node.op_type != "Cast"]
    if others:
        first = min(position for position, node in enumerate(edit.nodes) if any(node is other for other in others))
        cast = edit.node("Cast", [packed], to=data_type)
        edit.nodes.insert(first, cast)
        for node in others:
            for place, given in enumerate(node.input):
                if given == name:
                    node.input[place] = cast.output[0]
    del edit.stored[name]
    edit.refresh()
