"""Features of a frozen extractor, computed once, so that an epoch costs only the head."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from bigopt.data import fingerprint
from bigopt.train import predict
from bigopt.vocabulary.data import Data, Split, TensorSplit
from bigopt.vocabulary.part import Part
from bigopt.vocabulary.run import Run


class Standardize(nn.Module):
    """``(x - mean) / std`` of features, with constants of the training features.

    Args:
        mean: ``(F,)``.
        std: ``(F,)``, all positive.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Tensor, std: Tensor) -> None:
        super().__init__()
        self.register_buffer("mean", mean.detach().clone())
        self.register_buffer("std", std.detach().clone())

    @classmethod
    def of(cls, x: Tensor) -> Standardize:
        """Fitted on features ``(N, F)``; one that never changes keeps its scale."""
        std = x.std(0, correction=0)
        return cls(x.mean(0), torch.where(std > 1e-6 * (1 + x.mean(0).abs()), std, torch.ones_like(std)))

    def forward(self, x: Tensor) -> Tensor:
        """Standardised features, same shape."""
        return (x - self.mean) / self.std


@contextmanager
def cut_off(model: nn.Module, name: str) -> Iterator[nn.Module]:
    """A model without one of its modules while the block runs, so that it gives what enters this module."""
    head = model.get_submodule(name)
    model.set_submodule(name, nn.Identity())
    try:
        yield model
    finally:
        model.set_submodule(name, head)


def features(run: Run, model: nn.Module, cut: str, split: Split) -> Tensor:
    """What enters a module for every sample of a split, in evaluation mode.

    Args:
        run: gives batch size and device.
        model: takes raw inputs.
        cut: name of the module.
        split: its labels are not read.

    Returns:
        ``(N, F)``, or maps ``(N, C, H, W)``; float32 on the CPU.
    """
    from bigopt.train.precision import resolve_accelerator

    trainer = run.settings.trainer
    device = resolve_accelerator(trainer.accelerator)
    with cut_off(model, cut):
        return predict(model, split, trainer.eval_batch_size, device, workers=trainer.workers)


def feature_data(run: Run, model: nn.Module, cut: str, data: Data | None = None) -> Data:
    """A dataset of features: training and validation split of ``data`` as they enter a module of the model.

    Args:
        run: gives batch size, device and, unless given, the data.
        model: takes raw inputs.
        cut: name of the module.
        data: None means the run's.
    """
    data = data if data is not None else run.data
    train = TensorSplit(features(run, model, cut, data.train), data.train.y)
    val = TensorSplit(features(run, model, cut, data.val), data.val.y)
    return Data(
        name=f"{data.name}-features",
        schema=replace(data.schema, kind="tabular", shape=tuple(train.x.shape[1:]), flips=False),
        train=train,
        val=val,
        test=None,
        fingerprint=fingerprint({"train": train, "val": val}, {"features of": data.fingerprint}),
    )


def cacheable(run: Run, part: Part) -> bool:
    """Whether features can stand for the inputs: no other Part may act on these."""
    return all(other is part for other in run.parts)


def first_linear(head: nn.Module) -> nn.Linear | None:
    """The linear layer that takes the features, if only dropout comes before it."""
    for module in head.modules():
        if isinstance(module, nn.Linear):
            return module
        if not isinstance(module, nn.Sequential | nn.Dropout):
            return None
    return None


def scaled_head(head: nn.Module, x: Tensor) -> nn.Sequential:
    """The head behind a standardisation of its features ``(N, F)``, with the same outputs; :func:`fold` undoes it.

    Heads of maps, and those that do not begin with a linear layer, get none.
    """
    linear = first_linear(head)
    if x.ndim != 2 or linear is None:
        return nn.Sequential(nn.Identity(), head)
    scale = Standardize.of(x)
    _rescale(linear, scale.std.double(), scale.mean.double() / scale.std.double())
    return nn.Sequential(scale, head)


def fold(scaled: nn.Sequential) -> nn.Module:
    """The head alone, with the standardisation before it multiplied into its first layer; the same outputs."""
    scale, head = scaled[0], scaled[1]
    linear = first_linear(head)
    if isinstance(scale, Standardize) and linear is not None:
        _rescale(linear, 1 / scale.std.double(), -scale.mean.double())
    return head


@torch.no_grad()
def _rescale(linear: nn.Linear, factor: Tensor, shift: Tensor) -> None:
    """Makes ``linear(x)`` what ``linear(factor · (x + shift))`` was."""
    weight = linear.weight.double() * factor
    moved = weight @ shift
    linear.weight.copy_(weight)
    if linear.bias is None:
        linear.bias = nn.Parameter(moved.to(linear.weight.dtype))
    else:
        linear.bias.copy_(linear.bias.double() + moved)


@dataclass
class Held:
    """What stands aside while a head is trained on features.

    Attributes:
        model: the whole network; the head inside is the one in training.
        data: the run's dataset.
    """

    model: nn.Module
    data: Data


def train_head_only(run: Run, cut: str) -> Held:
    """Makes the head the run's model and its features the run's data, until :func:`whole_again`."""
    held = Held(run.model, run.data)
    data = feature_data(run, run.model, cut)
    assert isinstance(data.train, TensorSplit)
    run.data = data
    run.model = scaled_head(held.model.get_submodule(cut), data.train.x)
    return held


def whole_again(run: Run, held: Held) -> None:
    """Puts the whole network, with its trained head, and the dataset back."""
    assert isinstance(run.model, nn.Sequential)
    fold(run.model)
    run.model, run.data = held.model, held.data
