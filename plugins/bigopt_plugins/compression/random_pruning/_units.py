"""Random choices among units, the same whether they are zeroed or removed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import nn

from bigopt.surgery import ChannelGroup, Groups
from bigopt.vocabulary.network import Network
from bigopt_plugins.compression.random_pruning._wholes import MIXING

PROGRESS = "random_pruning_progress"
TOGETHER = "*"

Sort = Literal["neurons", "channels", "heads"]


def sort_of(model: Network, groups: Groups, group: ChannelGroup) -> Sort:
    """What a unit of a group is."""
    if any(set(block.projections) & set(group.layers) for block in groups.attention):
        return "heads"
    return "neurons" if isinstance(model.get_submodule(group.name), nn.Linear) else "channels"


def tied_by_norm(model: Network, group: ChannelGroup) -> str | None:
    """Name of a norm over the group's channels: with it, zeros are not the same as none."""
    names = {module: name for name, module in model.named_modules() if isinstance(module, MIXING)}
    members = (dep.target.module for dep, _ in group.raw)
    return next((names[module] for module in members if isinstance(module, MIXING) and module in names), None)


def alive(model: Network, group: ChannelGroup) -> list[int]:
    """Units whose weights are not all zero in every layer that makes them."""
    seen = torch.zeros(group.channels, dtype=torch.bool)
    for layer in group.layers:
        weight = model.get_submodule(layer).weight
        assert isinstance(weight, torch.Tensor)
        if len(weight) == group.channels:
            seen |= weight.detach().flatten(1).any(1).cpu()
    return seen.reshape(group.units, group.unit).any(1).nonzero().flatten().tolist()


@dataclass
class Progress:
    """What the strengths so far ask for, kept with the model while a step lasts, so that small rounds add up.

    Attributes:
        started: members that each pool, or all together, had at first.
        share: how much of them is to be left, before rounding.
        taken: members taken so far.
    """

    started: dict[str, int] = field(default_factory=dict)
    share: dict[str, float] = field(default_factory=dict)
    taken: int = 0

    @classmethod
    def of(cls, model: nn.Module) -> Progress:
        """The model's own; a new one at the start of a step."""
        found = vars(model).setdefault(PROGRESS, cls())
        assert isinstance(found, cls)
        return found

    @classmethod
    def end(cls, model: nn.Module) -> Progress:
        """Takes it off the model."""
        found = vars(model).pop(PROGRESS, None)
        return found if isinstance(found, cls) else cls()

    def due(self, pool: str, left: int, strength: float) -> int:
        """How many of the ``left`` members have to go now."""
        started = self.started.setdefault(pool, left)
        self.share[pool] = self.share.get(pool, 1.0) * (1 - strength)
        return max(0, left - (started - int((1 - self.share[pool]) * started + 1e-9)))


def draw(pools: Mapping[str, Sequence[int]], due: Mapping[str, int], total: int, seed: int) -> dict[str, list[int]]:
    """Which members of each pool go.

    Positions are drawn, not members, so that the same ones go where earlier ones were zeroed as where they were
    removed.

    Args:
        pools: members that are left, by pool.
        due: how many of each pool go at most.
        total: how many go altogether at most.
        seed: of the draw, together with how many are left, so that rounds draw anew.
    """
    places = [(pool, place) for pool, members in pools.items() for place in range(len(members))]
    generator = torch.Generator().manual_seed((seed * 1_000_003 + len(places)) % 2**63)
    taken: dict[str, list[int]] = {pool: [] for pool in pools}
    for pool, place in (places[i] for i in torch.randperm(len(places), generator=generator).tolist()):
        if total and len(taken[pool]) < due[pool]:
            taken[pool].append(pools[pool][place])
            total -= 1
    return {pool: sorted(members) for pool, members in taken.items() if members}


def choose(
    model: nn.Module,
    pools: Mapping[str, Sequence[int]],
    strength: float,
    ranking: str,
    least: Mapping[str, int],
    seed: int,
) -> dict[str, list[int]]:
    """Draws this share: of every pool (``local``), or of all together (``global``).

    Args:
        model: keeps the :class:`Progress` of the step.
        pools: members that are left, by pool.
        strength: share of them to take.
        ranking: ``local`` or ``global``.
        least: members that each pool keeps at least.
        seed: of the draw.
    """
    progress = Progress.of(model)
    count = sum(len(members) for members in pools.values())
    most = {pool: max(0, len(members) - least[pool]) for pool, members in pools.items()}
    if ranking == "local":
        due = {pool: min(most[pool], progress.due(pool, len(pools[pool]), strength)) for pool in pools}
        taken = draw(pools, due, count, seed)
    else:
        taken = draw(pools, most, progress.due(TOGETHER, count, strength), seed)
    progress.taken += sum(len(members) for members in taken.values())
    return taken
