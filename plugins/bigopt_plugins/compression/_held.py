"""Entries of parameters that were set to zero and stay there while the model trains."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from bigopt.vocabulary.part import Part
from bigopt.vocabulary.run import Run

SUFFIX = "_kept"
"""Of the buffer beside a parameter that says which of its entries are kept; it is in no file."""
SHARE = "share_left"
"""Buffer of a layer: how much of it the strengths so far leave, before rounding to what is possible."""


def hold(model: nn.Module, kept: Mapping[str, Tensor]) -> None:
    """Sets entries to zero, and notes them at the parameter's module for :func:`callbacks`.

    Args:
        model: changed in place.
        kept: by a parameter's name, a bool tensor of its shape, False where it is to be zero; what an earlier call
            set to zero stays so.
    """
    parameters = dict(model.named_parameters())
    for name, mask in kept.items():
        owner, leaf = _owner(model, name)
        earlier = getattr(owner, leaf + SUFFIX, None)
        mask = mask if earlier is None else mask & earlier
        owner.register_buffer(leaf + SUFFIX, mask, persistent=False)
        with torch.no_grad():
            parameters[name].masked_fill_(~mask, 0)  # a product would leave -0.0, which does not compress


def held(model: nn.Module) -> dict[str, Tensor]:
    """Which entries are kept, by the parameter's name, for parameters that have held zeros."""
    parameters = dict(model.named_parameters())
    found = {name.removesuffix(SUFFIX): mask for name, mask in model.named_buffers() if name.endswith(SUFFIX)}
    return {name: mask for name, mask in found.items() if name in parameters}


def release(model: nn.Module) -> tuple[str, ...]:
    """Forgets what is held and what is left, so that the model is a plain one; gives the held parameters' names."""
    names = tuple(held(model))
    for name in names:
        owner, leaf = _owner(model, name)
        delattr(owner, leaf + SUFFIX)
    for module in model.modules():
        if SHARE in module._buffers:
            delattr(module, SHARE)
    return names


def share_left(layer: nn.Module, strength: float) -> float:
    """What a further strength leaves of a layer, remembered unrounded, so that small steps add up."""
    share = float(getattr(layer, SHARE, 1.0)) * (1 - strength)
    layer.register_buffer(SHARE, torch.tensor(share, dtype=torch.float64), persistent=False)
    return share


def callbacks(model: nn.Module) -> list[Any]:
    """What holds the zeros during one fit."""
    from bigopt_plugins.compression._callbacks import HoldZeros

    parameters = dict(model.named_parameters())
    pairs = [(parameters[name], ~mask) for name, mask in held(model).items()]
    return [HoldZeros(pairs)] if pairs else []


class KeepZeros(Part):
    """Joins ``run.parts`` when a pruning step is over, so that the zeros outlast the training of later steps.

    Args:
        parameters: names of the parameters whose zeros are held; those that a later step replaced are passed over.
    """

    def __init__(self, parameters: tuple[str, ...]) -> None:
        self.parameters = parameters

    def callbacks(self, run: Run) -> list[Any]:
        """Holds whatever is zero in the named parameters when the fit starts."""
        from bigopt_plugins.compression._callbacks import HoldZeros

        present = dict(run.model.named_parameters())
        pairs = [(present[name], present[name].detach() == 0) for name in self.parameters if name in present]
        return [HoldZeros(pairs)] if pairs else []


def _owner(model: nn.Module, parameter: str) -> tuple[nn.Module, str]:
    path, _, leaf = parameter.rpartition(".")
    return model.get_submodule(path), leaf
