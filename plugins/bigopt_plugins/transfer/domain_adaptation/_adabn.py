"""AdaBN: batch norm's statistics are those of the target."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from bigopt.train.modes import evaluating
from bigopt.vocabulary.data import Split
from bigopt.vocabulary.errors import RequestError

ROWS = 2048


def batch_norms(model: nn.Module) -> list[str]:
    """Names of the layers with running statistics."""
    return [
        name
        for name, module in model.named_modules()
        if isinstance(module, _BatchNorm) and module.running_mean is not None
    ]


@torch.no_grad()
def adapt_statistics(model: nn.Module, split: Split, batch_size: int = 1024, rows: int = ROWS) -> int:
    """Sets every batch norm's mean and variance to those of its inputs over the target (Li et al. 2016).

    Layer by layer in the order of execution, each over all rows with the layers before it adapted already, so that
    the result does not depend on the batch size. Weights stay as they are.

    Args:
        model: changed in place; its modes are left alone.
        split: target inputs; its labels are not read.
        batch_size: rows of one forward pass.
        rows: evenly spaced rows that are used at most.

    Returns:
        number of layers.

    Raises:
        RequestError: the model has no batch norm.
    """
    names = batch_norms(model)
    if not names:
        raise RequestError("transfer.method: adabn needs a model with batch norm, and this one has none")
    index = torch.linspace(0, len(split) - 1, min(rows, len(split))).long()
    with evaluating(model):
        for name in _executed(model, split.take(index[:1]), names):
            layer = model.get_submodule(name)
            count, total, squares = 0, torch.zeros(()), torch.zeros(())
            for values in _inputs(model, layer, split, index.split(batch_size)):
                flat = values.double().movedim(1, 0).flatten(1)
                count += flat.shape[1]
                total = total + flat.sum(1)
                squares = squares + flat.square().sum(1)
            mean = total / count
            variance = (squares - count * mean.square()).clamp_min(0) / max(1, count - 1)
            layer.running_mean.copy_(mean)  # type: ignore[operator, union-attr]
            layer.running_var.copy_(variance)  # type: ignore[operator, union-attr]
    return len(names)


def _executed(model: nn.Module, example: Tensor, names: list[str]) -> list[str]:
    """The layers in the order in which a forward pass reaches them."""
    order: list[str] = []
    handles = [
        model.get_submodule(name).register_forward_pre_hook(lambda _module, _inputs, name=name: order.append(name))
        for name in names
    ]
    try:
        model(example.to(_device(model)))
    finally:
        for handle in handles:
            handle.remove()
    return list(dict.fromkeys(order))


class _Reached(Exception):
    """Ends a forward pass at the layer that is looked at."""


def _inputs(model: nn.Module, layer: nn.Module, split: Split, chunks: tuple[Tensor, ...]) -> Iterator[Tensor]:
    seen: list[Tensor] = []

    def stop(_module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        seen.append(inputs[0])
        raise _Reached

    handle = layer.register_forward_pre_hook(stop)
    try:
        for chunk in chunks:
            try:
                model(split.take(chunk).to(_device(model)))
            except _Reached:
                yield seen.pop()
    finally:
        handle.remove()


def _device(model: nn.Module) -> torch.device:
    return next(tensor.device for tensor in (*model.parameters(), *model.buffers()))
