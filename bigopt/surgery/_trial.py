"""Removal on a copy, for models whose indices can only be guessed: which groups come out wrong, and how."""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from bigopt.surgery._groups import Groups
    from bigopt.vocabulary.network import Network

MIXES = ("LayerNorm", "GroupNorm", "RMSNorm", "LocalResponseNorm", "Softmax")
"""Parts of names of modules behind which a channel of zeros is not the same as none."""

TOLERANCE = 1e-3
"""Largest difference between zeroed and removed as a share of the largest output; wrong channels give far more."""


def failing(
    model: Network, example: Tensor, find: Callable[[Network], Groups], names: Collection[str]
) -> dict[str, str]:
    """Groups that cannot be removed, by name, each with the reason.

    Args:
        model: left as it is.
        example: raw input ``(N, …)``.
        find: the groups of a copy of the model.
        names: the groups to try.
    """
    if _reason(model, example, find, names) is None:
        return {}
    found = {name: reason for name in names if (reason := _reason(model, example, find, [name])) is not None}
    rest = [name for name in names if name not in found]
    together = _reason(model, example, find, rest)
    return found if together is None else found | dict.fromkeys(rest, together)


def _reason(model: Network, example: Tensor, find: Callable[[Network], Groups], names: Collection[str]) -> str | None:
    """What goes wrong when a part of these groups is removed; None if nothing does."""
    trial = copy.deepcopy(model).eval()
    groups = find(trial)
    chosen = [(group, [0, group.units - 1][: group.units - 1]) for group in groups if group.name in names]
    with torch.no_grad():
        try:
            for group, units in chosen:
                groups.zero(group, units)
            zeroed = trial(example)
            for group, units in chosen:
                groups.remove(group, units)
            removed = trial(example)
        except (RuntimeError, IndexError, ValueError, TypeError, AssertionError, AttributeError) as error:
            text = str(error).splitlines()[0] if str(error) else type(error).__name__
            return f"its channels could not be followed through the model ({text})"
    if removed.shape != zeroed.shape:
        return f"the output {tuple(zeroed.shape)} became {tuple(removed.shape)}"
    if not _mixes(model) and (removed - zeroed).abs().max() > TOLERANCE * zeroed.abs().max():
        return "removing channels does not give what zeroing them gives, so that others would be removed"
    return None


def _mixes(model: nn.Module) -> bool:
    return any(word in type(module).__name__ for module in model.modules() for word in MIXES)
