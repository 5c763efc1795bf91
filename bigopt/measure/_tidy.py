"""An ONNX model without what only its exporter's developers read."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from string import ascii_lowercase, digits
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from onnx import AttributeProto, GraphProto, ModelProto

ALPHABET = ascii_lowercase + digits


def tidy(model: ModelProto) -> ModelProto:
    """Removes descriptions, traces, inferred shapes and unused tensors, and shortens names, in place.

    Exporters leave names and stack traces of 30–100 KB, source paths among them; a small net's own weights are less.
    Inputs and outputs of the model keep their names; the structure and every number stay.
    """
    model.producer_name = model.producer_version = model.domain = ""
    _strip(model)
    drop_unused(model.graph)
    _rename(model.graph)
    for function in model.functions:
        _strip(function)
    return model


def graphs(graph: GraphProto) -> Iterator[GraphProto]:
    """The graph and the ones inside its control flow."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            for inner in _inner(attribute):
                yield from graphs(inner)


def drop_unused(graph: GraphProto) -> None:
    """Removes initializers that no node reads and the graph does not give back."""
    read = {name for inner in graphs(graph) for node in inner.node for name in node.input}
    read |= {output.name for inner in graphs(graph) for output in inner.output}
    for inner in graphs(graph):
        for field in (inner.initializer, inner.sparse_initializer):
            kept = [tensor for tensor in field if _tensor_name(tensor) in read]
            if len(kept) < len(field):
                del field[:]
                field.extend(kept)


def _strip(message: Any) -> None:
    """Clears descriptions and metadata of a message and everything in it."""
    for descriptor, value in list(message.ListFields()):
        if descriptor.name in ("doc_string", "metadata_props", "value_info", "quantization_annotation"):
            message.ClearField(descriptor.name)
        elif descriptor.type == descriptor.TYPE_MESSAGE:
            # TensorProto holds the weights: nothing inside is worth a visit but its own description.
            for item in value if _repeated(value) else [value]:
                _strip(item)


def _repeated(value: Any) -> bool:
    return not hasattr(value, "ListFields")


def _rename(graph: GraphProto) -> None:
    """Gives every inner value a short name, in order of first use, and takes the nodes' names away."""
    kept = {value.name for value in (*graph.input, *graph.output)}
    fresh = (name for name in _names() if name not in kept)
    short: dict[str, str] = {name: name for name in kept} | {"": ""}

    def rename(name: str) -> str:
        if name not in short:
            short[name] = next(fresh)
        return short[name]

    graph.name = "bigopt"
    for inner in graphs(graph):
        for tensor in inner.initializer:
            tensor.name = rename(tensor.name)
        for sparse in inner.sparse_initializer:
            sparse.values.name = rename(sparse.values.name)
        for value in (*inner.input, *inner.output):
            value.name = rename(value.name)
        for node in inner.node:
            node.name = ""
            node.input[:] = [rename(name) for name in node.input]
            node.output[:] = [rename(name) for name in node.output]


def _names() -> Iterator[str]:
    """``a``, ``b``, …, ``aa``, …: letters first, so that every name is also an identifier."""
    for number in count():
        name, rest = ascii_lowercase[number % 26], number // 26
        while rest:
            rest -= 1
            name += ALPHABET[rest % 36]
            rest //= 36
        yield name


def _inner(attribute: AttributeProto) -> list[GraphProto]:
    return [*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs]


def _tensor_name(tensor: Any) -> str:
    return str(tensor.values.name if hasattr(tensor, "values") else tensor.name)
