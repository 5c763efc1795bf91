"""Random choices among units, the same whether they are zeroed or removed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import nn

from bigopt.surgery import ChannelGroup, Groups
from bigopt.vocabulary.network import Network
from bigopt_plugins.compression.random_pruning._wholes import MIXING

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


def draw(
    pools: Mapping[str, Sequence[int]], strength: float, ranking: str, least: Mapping[str, int], seed: int
) -> dict[str, list[int]]:
    """Which members of each pool go.

    Positions are drawn, not members, so that the same ones go where earlier ones were zeroed as where they were
    removed.

    Args:
        pools: members that are left, by pool.
        strength: share of them to take.
        ranking: ``local`` takes the share of every pool, ``global`` of all together.
        least: members that each pool keeps at least.
        seed: of the draw, together with how many are left, so that rounds draw anew.
    """
    total = sum(len(members) for members in pools.values())
    generator = torch.Generator().manual_seed((seed * 1_000_003 + total) % 2**63)
    order = torch.randperm(total, generator=generator).tolist()
    places = [(pool, place) for pool, members in pools.items() for place in range(len(members))]
    quota = {
        pool: min(
            int(strength * len(members) + 1e-9) if ranking == "local" else total, max(0, len(members) - least[pool])
        )
        for pool, members in pools.items()
    }
    budget = total if ranking == "local" else int(strength * total + 1e-9)
    taken: dict[str, list[int]] = {pool: [] for pool in pools}
    for pool, place in (places[i] for i in order):
        if budget and len(taken[pool]) < quota[pool]:
            taken[pool].append(pools[pool][place])
            budget -= 1
    return {pool: sorted(members) for pool, members in taken.items() if members}
