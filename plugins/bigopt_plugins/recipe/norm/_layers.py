"""Finding, inserting, removing and swapping normalisation layers."""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils import fusion

from bigopt.train.modes import evaluating

Kind = Literal["batch", "group", "layer"]

WEIGHTED = (nn.Conv1d, nn.Conv2d, nn.Linear)
NORMS = (_BatchNorm, nn.GroupNorm, nn.LayerNorm)


def batch_norms(model: nn.Module) -> list[str]:
    """Names of the batch norms."""
    return [name for name, module in model.named_modules() if isinstance(module, _BatchNorm)]


def followers(model: nn.Module, x: Tensor) -> dict[str, str | None]:
    """What each convolution and linear layer that acts on inputs ``x`` goes into directly.

    Returns:
        name of the norm right behind each layer by the layer's name, in the order of the forward pass; None where there
        is none. Layers that act more than once are left out.
    """
    made: dict[int, str] = {}
    kept: list[Tensor] = []  # identities are unique only as long as the tensors live
    found: dict[str, str | None] = {}
    seen: list[str] = []

    def after(name: str) -> Any:
        def hook(_module: nn.Module, _inputs: Any, output: Tensor) -> None:
            seen.append(name)
            made[id(output)] = name
            kept.append(output)
            found.setdefault(name, None)

        return hook

    def before(name: str) -> Any:
        def hook(_module: nn.Module, inputs: Any) -> None:
            if id(inputs[0]) in made:
                found[made[id(inputs[0])]] = name

        return hook

    hooks = []
    for name, module in model.named_modules():
        if isinstance(module, WEIGHTED):
            hooks.append(module.register_forward_hook(after(name)))
        elif isinstance(module, NORMS):
            hooks.append(module.register_forward_pre_hook(before(name)))
    try:
        with torch.no_grad(), evaluating(model):
            model(x)
    finally:
        for hook in hooks:
            hook.remove()
    return {name: norm for name, norm in found.items() if seen.count(name) == 1}


def insert(model: nn.Module, name: str) -> None:
    """A batch norm behind a layer, which it first leaves as it is (up to its epsilon)."""
    layer: Any = model.get_submodule(name)
    norm = nn.BatchNorm2d if isinstance(layer, nn.Conv2d) else nn.BatchNorm1d
    units = layer.out_features if isinstance(layer, nn.Linear) else layer.out_channels
    model.set_submodule(name, nn.Sequential(layer, norm(units).to(layer.weight.device)).train(layer.training))


def remove(model: nn.Module, layer: str, norm: str) -> None:
    """Takes a batch norm away and folds what it does in evaluation mode into the layer before it."""
    before: Any = model.get_submodule(layer)
    behind: Any = model.get_submodule(norm)
    training = before.training
    fuse: Any = fusion.fuse_linear_bn_eval if isinstance(before, nn.Linear) else fusion.fuse_conv_bn_eval
    model.set_submodule(layer, fuse(before.eval(), behind.eval()).train(training))
    model.set_submodule(norm, nn.Identity())


def swap(model: nn.Module, name: str, kind: Kind, groups: int) -> None:
    """Puts a norm without running statistics in a batch norm's place, with its scale and shift.

    Args:
        model: changed in place.
        name: of the batch norm, whose input is ``(N, C, …)``.
        kind: ``group`` (Wu and He 2018), or ``layer``: one group of all channels.
        groups: at most; the largest number below that divides the channels.
    """
    old: Any = model.get_submodule(name)
    channels = int(old.num_features)
    number = 1 if kind == "layer" else math.gcd(channels, groups) if channels % groups else groups
    new = nn.GroupNorm(number, channels, eps=old.eps, affine=old.affine)
    if old.affine:
        new.load_state_dict({"weight": old.weight.detach(), "bias": old.bias.detach()})
        new.to(old.weight.device)
    model.set_submodule(name, new.train(old.training))
