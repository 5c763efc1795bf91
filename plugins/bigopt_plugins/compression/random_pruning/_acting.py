"""Zeroing and removing what was chosen."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from bigopt.surgery import ChannelGroup, Groups
from bigopt.vocabulary.network import Network
from bigopt_plugins.compression.random_pruning._leaving import Whole, leave_out
from bigopt_plugins.compression.random_pruning._wholes import readers


def kept_units(model: nn.Module, groups: Groups, taken: Mapping[str, Sequence[int]]) -> dict[str, Tensor]:
    """Entries of parameters that are left once these units of the groups are zeroed, by parameter."""
    by_name: dict[str, ChannelGroup] = {group.name: group for group in groups}

    def act() -> None:
        for name, units in taken.items():
            groups.zero(by_name[name], units)

    return _kept_by(model, act)


def kept_wholes(model: Network, groups: Groups, wholes: Sequence[Whole]) -> dict[str, Tensor]:
    """The same for whole modules."""

    def act() -> None:
        for whole in wholes:
            _zero_whole(model, groups, whole)

    return _kept_by(model, act)


def remove_whole(model: Network, whole: Whole, example: Tensor) -> None:
    """Leaves a module out, cuts its channels from who reads them, and records it."""
    if whole.how == "cat":
        for reader in readers(model, Groups(model, example), whole.name) or ():
            reader.handler(reader.module, reader.index)
    leave_out(model, whole)
    model.changes.append(whole.entry())


@torch.no_grad()
def _kept_by(model: nn.Module, act: Callable[[], None]) -> dict[str, Tensor]:
    """For each parameter that ``act`` sets entries of to zero, True where it leaves them; the model stays as it is.

    It acts on ones, so that what was zero before is told from what it zeroes.
    """
    values = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    parameters = dict(model.named_parameters())
    try:
        for parameter in parameters.values():
            parameter.fill_(1)
        act()
        kept = {name: parameter.detach() != 0 for name, parameter in parameters.items()}
    finally:
        for name, parameter in parameters.items():
            parameter.copy_(values[name])
    return {name: mask for name, mask in kept.items() if not bool(mask.all())}


@torch.no_grad()
def _zero_whole(model: Network, groups: Groups, whole: Whole) -> None:
    """Sets a module's parameters to zero, and what reads its channels behind a concatenation."""
    for parameter in model.get_submodule(whole.name).parameters():
        parameter.zero_()
    for reader in (readers(model, groups, whole.name) or ()) if whole.how == "cat" else ():
        weight, bias = reader.module.weight, getattr(reader.module, "bias", None)
        assert isinstance(weight, Tensor)
        if reader.inputs:
            weight[:, reader.index] = 0
            continue
        weight[reader.index] = 0
        if isinstance(bias, Tensor):
            bias[reader.index] = 0
