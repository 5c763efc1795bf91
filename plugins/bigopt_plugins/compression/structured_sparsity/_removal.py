"""Choosing what vanished or is weakest, and taking it out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from bigopt.vocabulary.network import Network
from bigopt.vocabulary.run import Run
from bigopt_plugins.compression._channels import Units
from bigopt_plugins.compression._held import hold, release
from bigopt_plugins.compression.structured_sparsity._branches import Branch
from bigopt_plugins.compression.structured_sparsity._kernels import crop, croppable
from bigopt_plugins.compression.structured_sparsity._penalty import Shapes, magnitudes
from bigopt_plugins.compression.structured_sparsity._rules import Rule, ratio_of
from bigopt_plugins.compression.structured_sparsity._view import View

PLUGIN = "structured_sparsity"


@dataclass
class Choice:
    """What is to go.

    Attributes:
        units: dead units ``(count,)`` bool, with the units as they were found.
        branches: whole branches.
        positions: dead kernel positions ``(in, height, width)`` bool, by layer.
    """

    units: list[tuple[Units, Tensor]] = field(default_factory=list)
    branches: list[Branch] = field(default_factory=list)
    positions: dict[str, Tensor] = field(default_factory=dict)

    def empty(self) -> bool:
        """Whether nothing is to go."""
        masks = [dead for _, dead in self.units] + list(self.positions.values())
        return not self.branches and not any(bool(mask.any()) for mask in masks)


def vanished(view: View, model: nn.Module, kinds: Sequence[str], rules: Sequence[Rule], least: float) -> Choice:
    """Groups with a root mean square up to ``least``; of units with a rule the share that it asks for."""
    choice = Choice()
    for bundle in view.bundles:
        ratio = next((r for r in (ratio_of(rules, units) for units in bundle) if r is not None), None)
        sides = view.strength_of(bundle, kinds)
        if ratio is not None:
            dead = _weakest(sides[0], ratio)
        elif {"filters", "channels"} & set(kinds):
            dead = torch.stack(sides).amin(0) <= least
        else:
            continue
        choice.units += [(units, dead) for units in bundle]
    if "depth" in kinds and view.branches:
        gone = magnitudes(view.depth(model)) <= least
        choice.branches = [branch for branch, dead in zip(view.branches, gone.tolist(), strict=True) if dead]
    for name, layer in view.kernels.items():
        weight = layer.weight
        assert isinstance(weight, Tensor)
        choice.positions[name] = (magnitudes(Shapes(name, layer, view.norms)) <= least).reshape(weight.shape[1:])
    return choice


def weakest(
    view: View, model: nn.Module, kinds: Sequence[str], rules: Sequence[Rule], share: float, only: str | None
) -> Choice:
    """This share of each layer's groups, those with the smallest root mean square."""
    choice = Choice()
    if {"filters", "channels"} & set(kinds):
        for bundle in view.bundles:
            names = [units.name for units in bundle]
            if (only is None or only in names) and all(ratio_of(rules, units) is None for units in bundle):
                dead = _weakest(view.strength_of(bundle, kinds)[0], share)
                choice.units += [(units, dead) for units in bundle]
    if "depth" in kinds and view.branches:
        ranked = magnitudes(view.depth(model))
        gone = _weakest(ranked, share) if only is None else torch.tensor([b.name == only for b in view.branches])
        choice.branches = [branch for branch, dead in zip(view.branches, gone.tolist(), strict=True) if dead]
    for name, layer in view.kernels.items():
        if only in (None, name):
            choice.positions[name] = _weakest_left(magnitudes(Shapes(name, layer, view.norms)), share, layer)
    return choice


def take_away(
    run: Run, model: Network, view: View, choice: Choice, kinds: Sequence[str], rules: Sequence[Rule]
) -> None:
    """Removes what was chosen, in place; what has to stay for the rest to work is named.

    Kernel positions that cannot be cut off are held at zero.
    """
    release(model)  # what was held has other shapes afterwards, and is found again below
    with torch.no_grad():
        for name, dead in choice.positions.items():
            weight = model.get_submodule(name).weight
            assert isinstance(weight, Tensor)
            weight.masked_fill_(dead.to(weight.device), 0)
    for branch in choice.branches:
        branch.remove(model)
        entry = {"op": "remove_branch", "plugin": PLUGIN, "modules": list(branch.parts), "extra": list(branch.extra)}
        model.changes.append(entry)
    if choice.branches:
        view = View.of(run, model, kinds, rules)
    for units, dead in _translated(choice.units, view):
        chosen = dead.nonzero().flatten().tolist()
        if len(chosen) == units.count:
            chosen = chosen[1:]
            run.report.note(f"{units.name}: all its units vanished; one was kept, so that something goes on")
        if chosen:
            view.groups.remove(units.group, chosen)
    _crop(model, choice.positions)


def _translated(chosen: Sequence[tuple[Units, Tensor]], view: View) -> list[tuple[Units, Tensor]]:
    """The chosen units as the view knows them: a group may have lost the layer that it was named after."""
    found = []
    for units in (units for bundle in view.bundles for units in bundle):
        for old, dead in chosen:
            behind = old.units_behind(units.name)
            if behind:
                unit = units.group.unit
                mask = torch.tensor([bool(dead[behind[i * unit]]) for i in range(units.count)])
                found.append((units, mask))
                break
    return found


def _crop(model: Network, positions: Mapping[str, Tensor]) -> None:
    """Makes kernels smaller where whole rings vanished, and holds the other vanished positions at zero."""
    masks = {}
    for name in positions:
        layer = dict(model.named_modules()).get(name)
        if not isinstance(layer, nn.Conv2d):
            continue  # it went with its branch
        rings = croppable(layer)
        if any(rings):
            crop(layer, rings)
            model.changes.append({"op": "crop_kernel", "plugin": PLUGIN, "layer": name, "rings": list(rings)})
        alive = (layer.weight.detach() != 0).any(0, keepdim=True)
        if not bool(alive.all()):
            masks[f"{name}.weight"] = alive.expand_as(layer.weight).clone()
    hold(model, masks)


def _weakest(strengths: Tensor, share: float) -> Tensor:
    dead = torch.zeros(len(strengths), dtype=torch.bool)
    dead[strengths.cpu().argsort(stable=True)[: int(share * len(strengths) + 1e-9)]] = True
    return dead


def _weakest_left(strengths: Tensor, share: float, layer: nn.Module) -> Tensor:
    """Positions that are zero, and this share of the others."""
    zero = int((strengths == 0).sum())
    count = zero + int(share * (len(strengths) - zero) + 1e-9)
    dead = torch.zeros(len(strengths), dtype=torch.bool, device=strengths.device)
    dead[strengths.argsort(stable=True)[: min(count, len(strengths) - 1)]] = True
    weight = layer.weight
    assert isinstance(weight, Tensor)
    return dead.reshape(weight.shape[1:])
