"""The optimizer: its parameter groups, built by name, changed by Parts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import nn

from bigopt.vocabulary.errors import RequestError
from bigopt.vocabulary.part import Part
from bigopt.vocabulary.run import Run
from bigopt.vocabulary.settings import Optimizer

Group = dict[str, Any]


def default_groups(parameters: Iterable[nn.Parameter], settings: Optimizer, lr: float) -> list[Group]:
    """Trainable parameters in two groups: with weight decay, and norms and biases (one dimension) without."""
    unique = {id(parameter): parameter for parameter in parameters if parameter.requires_grad}.values()
    return [
        {"params": [p for p in unique if p.ndim > 1], "lr": lr, "weight_decay": settings.weight_decay},
        {"params": [p for p in unique if p.ndim <= 1], "lr": lr, "weight_decay": 0.0},
    ]


def build_groups(run: Run, parts: Sequence[Part], modules: Iterable[nn.Module], lr: float) -> list[Group]:
    """The default groups of the model and the auxiliary modules, as the Parts change them; empty ones left out.

    Raises:
        RequestError: nothing is left to train, or a Part put one parameter into two groups.
    """
    parameters = [p for module in (run.model, *modules) for p in module.parameters()]
    groups = default_groups(parameters, run.settings.optimizer, lr)
    for part in parts:
        groups = part.param_groups(run, groups)
    groups = [group for group in groups if group["params"]]
    ids = [id(parameter) for group in groups for parameter in group["params"]]
    if not ids:
        raise RequestError("nothing to train: every parameter of the model is frozen")
    if len(ids) != len(set(ids)):
        raise RequestError("a parameter is in two of the optimizer's groups: one Part's param_groups repeats it")
    return groups


def build_optimizer(groups: list[Group], settings: Optimizer, *, fused: bool = True) -> torch.optim.Optimizer:
    """The optimizer of ``torch.optim`` with this name; each group remembers its peak rate as ``initial_lr``.

    Args:
        groups: parameter groups with their own ``lr`` and ``weight_decay``.
        settings: which optimizer, and its parameters.
        fused: one kernel for all parameters where the optimizer has one. False under a gradient scaler, which must see
            the gradients between unscaling and the step.
    """
    how = {"fused": True} if fused and settings.name in ("adamw", "adam", "sgd", "adagrad") else {"foreach": True}
    betas = {"betas": settings.betas}
    momentum = {"momentum": settings.momentum}
    kinds: dict[str, tuple[Any, dict[str, Any]]] = {
        "adamw": (torch.optim.AdamW, betas),
        "adam": (torch.optim.Adam, betas),
        "nadam": (torch.optim.NAdam, betas),
        "radam": (torch.optim.RAdam, betas),
        "sgd": (torch.optim.SGD, momentum | {"nesterov": settings.nesterov and settings.momentum > 0}),
        "rmsprop": (torch.optim.RMSprop, momentum),
        "adagrad": (torch.optim.Adagrad, {}),
    }
    kind, arguments = kinds[settings.name]
    default = max(group.get("lr", 0.0) for group in groups) if isinstance(settings.lr, str) else settings.lr
    optimizer: torch.optim.Optimizer = kind(groups, lr=default, **how, **arguments)
    for group in optimizer.param_groups:
        group.setdefault("initial_lr", group["lr"])
    return optimizer


@torch.no_grad()
def match_layout(optimizer: torch.optim.Optimizer) -> None:
    """Gives every gradient its weight's memory format, which autograd's own gradients have.

    The CPU's fused kernels walk weight and gradient in memory order, and would mix up one that is laid out otherwise.
    """
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            if parameter.grad is not None and parameter.grad.stride() != parameter.stride():
                parameter.grad = torch.empty_like(parameter).copy_(parameter.grad)


def set_rate(optimizer: torch.optim.Optimizer, share: float) -> None:
    """Sets every group's rate to this share of its own peak; a group added later starts from its ``lr``."""
    for group in optimizer.param_groups:
        group["lr"] = group.setdefault("initial_lr", group["lr"]) * share
