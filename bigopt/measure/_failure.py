"""Which layer or operator an export failed at, in one line."""

from __future__ import annotations

import re
import traceback
from collections.abc import Iterator

from torch import nn
from torch.export import ExportedProgram

from bigopt.vocabulary.errors import RunFailed

OPERATOR = re.compile(r"target=torch\.ops\.([\w.]+)")
NODE = re.compile(r"%(\w+) :")


def export_failed(what: str, error: BaseException, model: nn.Module, program: ExportedProgram | None) -> RunFailed:
    """The error to raise instead of an exporter's.

    Args:
        what: the file that was being written, such as ``ONNX``.
        error: what the exporter raised.
        model: the model, whose layers are looked up in the traceback.
        program: the graph, where one exists, whose nodes are looked up in the messages.
    """
    place = _failing_layer(error, model) or _failing_node(error, program)
    where = f" at {place}" if place else ""
    return RunFailed(f"{what} export failed{where}: {_first_line(error)}")


def _failing_layer(error: BaseException, model: nn.Module) -> str | None:
    """The innermost layer of the model that was computing when the error was raised."""
    names = {id(module): name for name, module in model.named_modules() if name}
    found = None
    for cause in _chain(error):
        for frame, _ in traceback.walk_tb(cause.__traceback__):
            module = frame.f_locals.get("self")
            if id(module) in names:
                found = f"layer {names[id(module)]} ({type(module).__name__})"
    return found


def _failing_node(error: BaseException, program: ExportedProgram | None) -> str | None:
    """The operator, and the layer it came from, that the messages name."""
    text = "\n".join(str(cause) for cause in _chain(error))
    operator, node = OPERATOR.search(text), NODE.search(text)
    layer = _layer_of(program, node.group(1)) if program is not None and node else None
    parts = [f"operator {operator.group(1)}"] if operator else []
    return ", ".join(parts + ([f"layer {layer}"] if layer else [])) or None


def _layer_of(program: ExportedProgram, name: str) -> str | None:
    for node in program.graph.nodes:
        if node.name == name:
            paths = [path for path, _ in (node.meta.get("nn_module_stack") or {}).values() if path]
            return str(paths[-1]) if paths else None
    return None


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def _first_line(error: BaseException) -> str:
    """The first line of the innermost message; exporters wrap it in pages of advice."""
    innermost = list(_chain(error))[-1]
    for candidate in (innermost, error):
        for line in str(candidate).splitlines():
            if line.strip():
                return f"{line.strip()[:300]} ({type(candidate).__name__})"
    return type(error).__name__
