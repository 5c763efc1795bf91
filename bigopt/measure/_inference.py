"""Models made ready for measuring, and left as they were afterwards."""

from __future__ import annotations

import copy
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.fx import GraphModule

CHATTER = ("torch.onnx", "torch.export", "torch.utils._pytree", "torch._export", "onnxscript", "onnx_ir", "torchao")


@contextmanager
def inference(model: nn.Module) -> Iterator[nn.Module]:
    """The model in evaluation mode and without gradients; afterwards every module is in the mode it was in.

    An exported graph refuses ``eval()``. One that was exported for training is replaced by a copy whose dropout and
    batch norm are switched over; any other is used as it is.
    """
    modes = [(module, module.training) for module in model.modules()]
    ready = model
    try:
        if isinstance(model, GraphModule) and _computes_as_in_training(model):
            ready = _switched_over(model)
        else:
            _eval(model)
        with torch.no_grad():
            yield ready
    finally:
        _restore(model, modes)


@contextmanager
def quiet() -> Iterator[None]:
    """Silences the warnings of exporters, which are addressed to their developers."""
    loggers = [logging.getLogger(name) for name in CHATTER]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.CRITICAL)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def device_of(model: nn.Module) -> torch.device:
    """Where a model's first parameter or buffer lies; the CPU for a model without any."""
    for tensor in (*model.parameters(), *model.buffers()):
        return tensor.device
    return torch.device("cpu")


def on_cpu(model: nn.Module) -> nn.Module:
    """The model if it lies on the CPU, else a copy there: files must load on machines without an accelerator."""
    return model if device_of(model).type == "cpu" else copy.deepcopy(model).cpu()


def blank_rows(example: Tensor, rows: int) -> Tensor:
    """Zeros shaped like ``rows`` samples of the example: shapes matter to an exporter, the user's data do not."""
    return torch.zeros((rows, *example.shape[1:]), dtype=example.dtype)


def resolve(model: nn.Module, target: str) -> Tensor | None:
    """The tensor that a graph's ``get_attr`` node names; None where it is something else."""
    found: object = model
    for name in target.split("."):
        found = getattr(found, name, None)
    return found if isinstance(found, Tensor) else None


def _computes_as_in_training(model: GraphModule) -> bool:
    """Whether a graph holds dropout or batch norm that was exported in training mode."""
    aten = torch.ops.aten
    for node in model.graph.nodes:
        if node.target is aten.dropout.default and node.args[2]:
            return True
        if node.target is aten.batch_norm.default and node.args[5]:
            return True
    return False


def _switched_over(model: GraphModule) -> GraphModule:
    from torchao.quantization.pt2e import move_exported_model_to_eval

    with quiet():
        switched: GraphModule = move_exported_model_to_eval(copy.deepcopy(model))
    return switched


def _eval(model: nn.Module) -> None:
    try:
        model.eval()
    except NotImplementedError:  # an exported graph has no modes
        for module in model.modules():
            module.training = False


def _restore(model: nn.Module, modes: list[tuple[nn.Module, bool]]) -> None:
    if modes[0][1] and not model.training:
        try:
            model.train()  # a graph that follows its mode rewrites itself here
        except NotImplementedError:
            pass
    for module, training in modes:
        module.training = training
