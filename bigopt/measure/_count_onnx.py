"""The same counts, read from the file that ships."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from bigopt.measure._onnx_graph import OnnxGraph, Stored, attribute, width_of_type
from bigopt.measure.counts import Bits, Counts, Layer, with_bits
from bigopt.measure.session import Session
from bigopt.vocabulary.errors import RequestError

if TYPE_CHECKING:
    from onnx import NodeProto

FACTORS = {
    "Conv": (0, 1),
    "ConvInteger": (0, 1),
    "ConvTranspose": (0, 1),
    "Gemm": (0, 1),
    "MatMul": (0, 1),
    "MatMulInteger": (0, 1),
    "Einsum": (0, 1),
    "Attention": (0, 1),
    "QLinearConv": (0, 3),
    "QLinearMatMul": (0, 3),
    "LSTM": (0, 1),
    "GRU": (0, 1),
    "RNN": (0, 1),
}
"""Where an operator that multiplies has its activation and its weight."""

WEIGHTS = {
    "Conv": (1, 2),
    "ConvInteger": (1,),
    "ConvTranspose": (1, 2),
    "Gemm": (1, 2),
    "MatMul": (0, 1),
    "MatMulInteger": (1,),
    "Einsum": (0, 1),
    "QLinearConv": (3, 8),
    "QLinearMatMul": (3,),
    "LSTM": (1, 2, 3),
    "GRU": (1, 2, 3),
    "RNN": (1, 2, 3),
    "Gather": (0,),
    "PRelu": (1,),
    "BatchNormalization": (1, 2),
    "InstanceNormalization": (1, 2),
    "GroupNormalization": (1, 2),
    "LayerNormalization": (1, 2),
    "RMSNormalization": (1,),
    "Add": (0, 1),
    "Concat": (0, 1),
    "Expand": (0,),
}
"""Where an operator has trained tensors; additions and joins take biases, positions and class tokens."""

INTEGER = {"ConvInteger", "MatMulInteger"}
"""Operators that take the zero point of their weight as the fourth input."""

CONSTANTS_TOO = {"Add", "Concat", "Expand"}
"""Operators that also take constants of the net's code, which are single numbers."""

Shape = tuple[int, ...]


def count_onnx(path: Path, bits: Bits = None) -> Counts:
    """Counts an ONNX file.

    MACs and widths are those of the operators that ship: the file is run once on one sample, so that every shape is
    the real one, and widths are those of the stored integers (a 4-bit weight that is unpacked for an 8-bit kernel
    counts as 4). Both hold for any file without control flow.

    Parameters are the stored tensors that operators take as weights. Exporting folds batch norm into convolutions and
    drops biases that are zero, so there can be fewer than :func:`bigopt.measure.count` finds in the net that was
    trained; the report's row takes parameters from there and MACs from here.

    Args:
        path: the file, with one input of which only the batch size is open.
        bits: refines the widths, as in :func:`bigopt.measure.count`.

    Raises:
        RequestError: the input has another open dimension.
        RunFailed: ONNX Runtime cannot run the file.
    """
    graph = OnnxGraph(path)
    layers = with_bits(_layers(graph, _shapes(graph)), bits)
    found = list(_weights(graph))
    sizes = [math.prod(stored.tensor.dims) for stored in found]
    widths = [width_of_type(stored.tensor.data_type) for stored in found]
    return Counts(
        parameters=sum(sizes),
        nonzero=sum(_nonzero(graph, stored) for stored in found),
        macs=sum(layer.macs for layer in layers),
        bops=sum(layer.bops for layer in layers),
        weight_bits=sum(size * width for size, width in zip(sizes, widths, strict=True)) / max(sum(sizes), 1),
        layers=layers,
    )


def _layers(graph: OnnxGraph, shapes: dict[str, Shape]) -> Iterator[Layer]:
    for position, node in enumerate(graph.nodes):
        if node.op_type not in FACTORS:
            continue
        first, second = (node.input[place] for place in FACTORS[node.op_type])
        macs = _macs(node, [shapes[name] if name else () for name in node.input], shapes[node.output[0]])
        yield Layer(f"{node.op_type}_{position}", macs, graph.width(second), graph.width(first))


def _macs(node: NodeProto, inputs: Sequence[Shape], output: Shape) -> int:
    """Products of one operator, from the shapes of what goes in and comes out."""
    first, second = (inputs[place] for place in FACTORS[node.op_type])
    kind = node.op_type
    if kind == "ConvTranspose":
        return math.prod(first) * math.prod(second[1:])
    if "Conv" in kind:
        return math.prod(output) * math.prod(second[1:])
    if kind == "Gemm":
        return math.prod(output) * first[0 if attribute(node, "transA", 0) else 1]
    if kind == "Einsum":
        return _einsum_macs(attribute(node, "equation", b"").decode(), inputs)
    if kind in ("LSTM", "GRU", "RNN"):
        return first[0] * first[1] * (math.prod(second) + math.prod(inputs[2]))
    if kind == "Attention":
        return _attention_macs(node, inputs)
    return math.prod(output) * first[-1]


def _attention_macs(node: NodeProto, inputs: Sequence[Shape]) -> int:
    """Scores and their mean over values: every head, query and key once per feature of a key and of a value."""
    query, key, value = inputs[:3]
    if len(query) == 4:
        heads, queries, features, values = query[1], query[2], query[3], value[3]
    else:
        heads = attribute(node, "q_num_heads", 1)
        queries, features = query[1], query[2] // heads
        values = value[2] // attribute(node, "kv_num_heads", heads)
    return query[0] * heads * queries * key[-2] * (features + values)


def _einsum_macs(equation: str, inputs: Sequence[Shape]) -> int:
    """One product per combination of all indices."""
    if len(inputs) != 2:
        return 0
    sizes: dict[str, int] = {}
    for term, shape in zip(equation.replace(" ", "").partition("->")[0].split(","), inputs, strict=True):
        batch = len(shape) - len(term.replace("...", ""))  # of "...": indices that both factors share
        sizes |= dict(zip(term.replace("...", "0123456789"[:batch]), shape, strict=True))
    return math.prod(sizes.values())


def _shapes(graph: OnnxGraph) -> dict[str, Shape]:
    """Shapes of everything that multiplying operators read and write, for one sample."""
    import onnx

    shapes = {name: tuple(tensor.dims) for name, tensor in graph.stored.items()}
    products = [node for node in graph.nodes if node.op_type in FACTORS]
    wanted = {name for node in products for name in (*node.input, *node.output[:1]) if name} - shapes.keys()
    whole = onnx.ModelProto()
    whole.CopyFrom(graph.model)
    del whole.graph.output[:]
    whole.graph.output.extend(onnx.ValueInfoProto(name=name) for name in sorted(wanted))
    given = {value.name for value in graph.model.graph.input} & wanted
    session = Session(whole.SerializeToString(), optimize=False)
    x = _one_sample(session)
    names = sorted(wanted - given)
    values = session.onnx.run(names, {session.input: Session.array(x)}) if names else []
    measured = {name: tuple(value.shape) for name, value in zip(names, values, strict=True)}
    return shapes | measured | dict.fromkeys(given, tuple(x.shape))


def _one_sample(session: Session) -> torch.Tensor:
    if not all(isinstance(size, int) for size in session.shape):
        raise RequestError(f"input shape: got {session.shape}, expected no open size but the batch's")
    kind = session.onnx.get_inputs()[0].type
    dtype = {"tensor(int64)": torch.int64, "tensor(int32)": torch.int32}.get(kind, torch.float32)
    return torch.zeros((1, *session.shape), dtype=dtype)


def _weights(graph: OnnxGraph) -> Iterator[Stored]:
    """Every stored tensor that an operator takes as a weight, once."""
    from onnx import TensorProto

    seen = set()
    for node in graph.nodes:
        for place in WEIGHTS.get(node.op_type, ()):
            stored = graph.source(node.input[place]) if place < len(node.input) and node.input[place] else None
            if stored is None or stored.tensor.name in seen:
                continue
            if node.op_type in INTEGER and len(node.input) > 3 and node.input[3] in graph.stored:
                stored = replace(stored, zero=node.input[3])
            index = stored.tensor.data_type in (TensorProto.INT64, TensorProto.INT32) and stored.dequantize is None
            scalar = node.op_type in CONSTANTS_TOO and math.prod(stored.tensor.dims) < 2
            if not (index or scalar):
                seen.add(stored.tensor.name)
                yield stored


def _nonzero(graph: OnnxGraph, stored: Stored) -> int:
    values, zero = graph.array(stored)
    return int((values != zero).sum())
