"""Files that outlive bigopt: ONNX, and PyTorch's own exported program."""

from __future__ import annotations

import copy
import io
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram
from torch.fx import GraphModule, Node

from bigopt.measure._failure import export_failed
from bigopt.measure._inference import blank_rows, inference, on_cpu, quiet, resolve
from bigopt.store import write_atomic

ROWS = 3  # of the example that is traced: 1 and 2 are sizes that tracing may take for constants
TRACING_NOTES = ("stack_trace", "nn_module_stack", "source_fn_stack", "torch_fn", "from_node")
"""What tracing notes at each operator: half of a small file, with paths of the machine that exported."""


def export_onnx(model: nn.Module, example: Tensor, path: Path, *, opset: int | None = None) -> Path:
    """Writes a model as one ONNX file with input ``input``, output ``logits`` and any batch size from 1.

    The file holds no metadata of the exporter, and equal models give equal bytes. Works on eager modules and on
    exported graphs, quantized ones too; the model is left as it was.

    Args:
        model: gives logits ``(N, K)`` of raw inputs ``(N, …)``.
        example: inputs ``(N, …)``, of which the shape and the type are used.
        path: the file.
        opset: version of ONNX's operators; None takes the exporter's own choice.

    Returns:
        The path written.

    Raises:
        RunFailed: the model cannot be exported; names the layer or the operator.
        OSError: the file could not be written; an older one is as it was.
    """
    program = trace(model, example, "ONNX")
    proto = _to_onnx(program, model, opset)
    return write_atomic(path, proto.SerializeToString(deterministic=True))


def export_pt2(model: nn.Module, example: Tensor, path: Path) -> Path:
    """Writes a model as an exported program that ``torch.export.load`` reads in a process with torch alone.

    Operators of ``quantized_decomposed``, which only exist where torchao was imported, are replaced by what they
    compute.

    Args:
        model: gives logits ``(N, K)`` of raw inputs ``(N, …)``.
        example: inputs ``(N, …)``, of which the shape and the type are used.
        path: the file.

    Returns:
        The path written.

    Raises:
        RunFailed: the model cannot be exported; names the layer or the operator.
        OSError: the file could not be written; an older one is as it was.
    """
    program = trace(model, example, "pt2")
    try:
        with quiet():
            program = _self_contained(program)
            for node in program.graph.nodes:
                for note in TRACING_NOTES:
                    node.meta.pop(note, None)
            buffer = io.BytesIO()  # a file would get its temporary name written into it
            torch.export.save(program, buffer)
    except Exception as error:
        raise export_failed("pt2", error, model, program) from error
    return write_atomic(path, buffer.getvalue())


def trace(model: nn.Module, example: Tensor, what: str) -> ExportedProgram:
    """The model's graph in evaluation mode, for any batch size from 1.

    Raises:
        RunFailed: the model cannot be traced, or only for one batch size.
    """
    with inference(on_cpu(model)) as ready, quiet():
        try:
            return torch.export.export(
                _without_unread(ready),
                (blank_rows(example, ROWS),),
                dynamic_shapes=({0: Dim("batch", min=1)},),
                strict=False,
            )
        except Exception as error:
            raise export_failed(what, error, model, None) from error


def _to_onnx(program: ExportedProgram, model: nn.Module, opset: int | None) -> Any:
    import onnx

    from bigopt.measure._integers import shape_integers, translations
    from bigopt.measure._registry import remembered_registry
    from bigopt.measure._tidy import tidy

    try:
        with quiet(), remembered_registry():
            exported = torch.onnx.export(
                program,
                dynamo=True,
                external_data=False,
                input_names=["input"],
                output_names=["logits"],
                opset_version=opset,
                custom_translation_table=translations(),
                verbose=False,
            )
            assert exported is not None
            proto = tidy(shape_integers(exported.model_proto))
            onnx.checker.check_model(proto, full_check=True)
    except Exception as error:
        raise export_failed("ONNX", error, model, program) from error
    return proto


def _without_unread(model: nn.Module) -> nn.Module:
    """An exported graph without the weights that nothing reads any more, such as the floats behind its integers."""
    if not isinstance(model, GraphModule) or _called(model):
        return model
    named = {str(node.target) for node in model.graph.nodes if node.op == "get_attr"}
    graph = copy.deepcopy(model.graph)
    for node in [node for node in graph.nodes if node.op == "call_module"]:
        graph.erase_node(node)
    read = {name: resolve(model, name) for name in named}
    return model if None in read.values() else GraphModule(read, graph)


def _called(model: GraphModule) -> list[Node]:
    """Calls of modules other than the check of input shapes, which exporting adds again."""
    return [node for node in model.graph.nodes if node.op == "call_module" and node.target != "_guards_fn"]


def _self_contained(program: ExportedProgram) -> ExportedProgram:
    """The program with foreign quantization operators replaced by torch's own."""
    foreign = {
        node.target
        for node in program.graph.nodes
        if node.op == "call_function" and getattr(node.target, "namespace", "") == "quantized_decomposed"
    }
    if not foreign:
        return program
    decomposed: ExportedProgram = program.run_decompositions({name: _decomposition(name) for name in foreign})
    return decomposed


def _decomposition(operator: Any) -> Any:
    """What a ``quantized_decomposed`` operator computes, written in torch's operators."""
    from torch.ao.quantization.fx import _decomposed

    name, overload = operator._schema.name.split("::")[1], operator._overloadname
    function = getattr(_decomposed, name if overload == "default" else f"{name}_{overload}", None)
    if function is None:
        raise NotImplementedError(f"target=torch.ops.{operator}: no equivalent in torch's own operators")
    return function
