"""A pruning criterion out of the user's own code."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable

import torch
from torch import Tensor, nn

from bigopt.registry.own_code import import_own
from bigopt.surgery import ChannelGroup
from bigopt.vocabulary.errors import RequestError

Criterion = Callable[[ChannelGroup, nn.Module], Tensor]
"""``criterion(group, model)`` gives scores ``(group.units,)`` or ``(group.channels,)``; the lowest are removed."""


def is_path(name: str) -> bool:
    """Whether a criterion's name is the import path of a function."""
    return "." in name or ":" in name


def imported(path: str) -> Criterion:
    """The function at ``package.module.function`` (or ``package.module:function``). **This imports the user's code.**

    The working directory is looked into as well.

    Raises:
        RequestError: it cannot be imported, or is nothing that takes a group and a model.
    """
    module, _, attribute = path.partition(":") if ":" in path else path.rpartition(".")
    if not all(part.isidentifier() for part in f"{module}.{attribute}".split(".")):
        raise RequestError(f"criterion: got {path!r}, expected package.module.function")
    logging.getLogger("bigopt").warning("channel_pruning imports and runs the code of %s", path)
    try:
        found = import_own(module, attribute)
    except Exception as error:  # whatever the user's code raises is the user's to see
        lines = str(error).strip().splitlines() or [""]
        raise RequestError(f"criterion: cannot import {path}: {type(error).__name__}: {lines[0]}") from error
    try:
        inspect.signature(found).bind(None, None)
    except (TypeError, ValueError) as error:
        raise RequestError(f"criterion: {path} should be a function (group, model) -> scores: {error}") from error
    result: Criterion = found
    return result


def own_scores(criterion: Criterion, name: str, group: ChannelGroup, model: nn.Module) -> Tensor:
    """Scores of each unit ``(units,)``, on the CPU.

    Args:
        criterion: the function.
        name: what messages call it.
        group: whose units are ranked.
        model: in evaluation mode; ``model.get_submodule(group.name)`` is the group's root layer.

    Raises:
        RequestError: the function fails, or gives something other than one finite score a unit or channel.
    """
    try:
        with torch.no_grad():
            given = torch.as_tensor(criterion(group, model)).detach().float().cpu()
    except Exception as error:
        lines = str(error).strip().splitlines() or [""]
        raise RequestError(f"criterion {name} fails at {group.name}: {type(error).__name__}: {lines[0]}") from error
    if tuple(given.shape) == (group.channels,):
        given = group.unit_scores(given)
    if tuple(given.shape) != (group.units,) or not bool(given.isfinite().all()):
        got = "values that are not finite" if given.numel() == group.units else f"shape {list(given.shape)}"
        raise RequestError(f"criterion {name}: got {got} for {group.name}, expected {group.units} finite scores")
    return given
