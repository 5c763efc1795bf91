"""Training and evaluation mode of modules: what is frozen stays bit-identical, running statistics too."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

STAY_EVAL = "stay_eval"
"""Attribute by which a Part keeps a module, with everything inside, in evaluation mode during training."""


def set_mode(model: nn.Module, training: bool) -> None:
    """``model.train(training)``, also for exported graphs, which refuse the call and know no modes."""
    try:
        model.train(training)
    except NotImplementedError:
        for module in model.modules():
            module.training = training


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode while the block runs; afterwards every module is in the mode it was in."""
    modes = [(module, module.training) for module in model.modules()]
    set_mode(model, False)
    try:
        yield
    finally:
        if modes[0][1]:
            set_mode(model, True)
        for module, training in modes:
            module.training = training


def start_training(model: nn.Module) -> None:
    """Training mode for everything but what is frozen."""
    set_mode(model, True)
    follow_freezing(model)


def follow_freezing(model: nn.Module) -> None:
    """Keeps running statistics where they belong to frozen weights, and lets them move again once these train.

    A module with running statistics is frozen when all its own parameters are; one without parameters of its own
    follows the nearest module around it that has some. :data:`STAY_EVAL` overrules it.
    """
    modules = dict(model.named_modules())
    kept: list[str] = []
    for name, module in modules.items():
        if getattr(module, STAY_EVAL, False) or any(name.startswith(outer) for outer in kept):
            kept.append(f"{name}." if name else "")
            module.training = False
        elif getattr(module, "running_mean", None) is not None:
            module.training = not _frozen(name, modules)


def _frozen(name: str, modules: dict[str, nn.Module]) -> bool:
    own = list(modules[name].parameters(recurse=False))
    while not own and name:
        name = name.rpartition(".")[0]
        own = list(modules[name].parameters())
    return bool(own) and not any(parameter.requires_grad for parameter in own)
