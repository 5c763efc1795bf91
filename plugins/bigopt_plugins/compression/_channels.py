"""Which slices of which weights make and read each removable unit, and which batch norm follows which layer."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from bigopt.surgery import ChannelGroup, Groups
from bigopt.train.modes import evaluating

WEIGHTED = (nn.Conv1d, nn.Conv2d, nn.Linear)
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)
HARMLESS = (*WEIGHTED, *NORMS, nn.PReLU)
"""Modules that treat each channel on its own, or mix channels by weights."""


@dataclass(frozen=True)
class Side:
    """Channels of one module that belong to units.

    Attributes:
        name: the module.
        module: a convolution, a linear layer or a batch norm.
        index: its channels ``(n,)``.
        unit: the unit behind each ``(n,)``.
    """

    name: str
    module: nn.Module
    index: Tensor
    unit: Tensor

    def sums(self, values: Tensor, units: int) -> Tensor:
        """Sums over the channels of each unit ``(units,)`` of values of all the module's channels."""
        total = values.new_zeros(units)
        return total.index_add(0, self.unit.to(values.device), values[self.index.to(values.device)])

    def count(self, units: int) -> Tensor:
        """Number of channels of each unit ``(units,)``."""
        return torch.zeros(units).index_add_(0, self.unit, torch.ones(len(self.unit)))

    def spread(self, factors: Tensor) -> tuple[Tensor, Tensor]:
        """The channels, and the factor ``(n,)`` of the unit behind each."""
        return self.index.to(factors.device), factors[self.unit.to(factors.device)]


@dataclass
class Units:
    """Removable units of one group: channels, neurons or heads.

    Attributes:
        group: what the surgery knows them by.
        makes: rows of the layers that compute them.
        reads: columns of the layers that read them.
        norms: channels of the batch norms that they pass through.
    """

    group: ChannelGroup
    makes: list[Side] = field(default_factory=list)
    reads: list[Side] = field(default_factory=list)
    norms: list[Side] = field(default_factory=list)

    @property
    def name(self) -> str:
        """The group's root layer."""
        return self.group.name

    @property
    def count(self) -> int:
        """Number of units."""
        return self.group.units

    def units_behind(self, layer: str) -> dict[int, int]:
        """Unit by output channel of one of the layers that compute them; empty for other layers."""
        side = next((side for side in self.makes if side.name == layer), None)
        return dict(zip(side.index.tolist(), side.unit.tolist(), strict=True)) if side is not None else {}

    @torch.no_grad()
    def silence(self, dead: Tensor) -> None:
        """Sets everything that makes these units to zero, shifts included: the outputs are those without the units.

        Args:
            dead: ``(count,)`` bool.
        """
        for side in (*self.makes, *self.norms):
            gone = side.index[dead.cpu()[side.unit]]
            for tensor in (side.module.weight, side.module.bias):
                if isinstance(tensor, Tensor):
                    tensor[gone.to(tensor.device)] = 0


def find_units(model: nn.Module, groups: Groups) -> tuple[list[Units], dict[str, str]]:
    """Units whose silence is their absence, and why the other groups' are not.

    Layer and group normalisation mix channels, so that a silent channel still counts; a free parameter that is added
    to a channel keeps it speaking.
    """
    names = {module: name for name, module in model.named_modules()}
    found: list[Units] = []
    left = dict(groups.unhandled)
    for group in groups:
        units = _units(group, names)
        if isinstance(units, str):
            left[group.name] = units
        else:
            found.append(units)
    return found, left


def _units(group: ChannelGroup, names: dict[nn.Module, str]) -> Units | str:
    places: dict[tuple[str, str], tuple[nn.Module, dict[int, int]]] = {}
    for item in group.raw:
        module = item.dep.target.module
        if isinstance(module, nn.Parameter):
            return "a free parameter is tied to its channels"
        if module not in names:
            continue  # an operation, not a layer
        if not isinstance(module, HARMLESS):
            return f"{type(module).__name__} {names[module]} mixes its channels"
        if item.root_idxs is None or None in item.root_idxs:
            return f"which channels of {names[module]} belong to it cannot be told"
        side = "norms" if isinstance(module, NORMS) else "reads" if _reads(item) else "makes"
        if isinstance(module, nn.PReLU):
            continue  # silent in, silent out
        behind = places.setdefault((side, names[module]), (module, {}))[1]
        behind |= {int(i): int(root) // group.unit for i, root in zip(item.idxs, item.root_idxs, strict=True)}
    units = Units(group)
    for (side, name), (module, behind) in places.items():
        index, unit = torch.tensor(list(behind)), torch.tensor(list(behind.values()))
        getattr(units, side).append(Side(name, module, index, unit))
    return units


def _reads(item: object) -> bool:
    return "in_channels" in item.dep.handler.__name__  # type: ignore[attr-defined]


def norms_behind(model: nn.Module, example: Tensor) -> dict[str, nn.Module]:
    """The batch norm with a scale whose input is a layer's very output, by the layer's name.

    Args:
        model: run once, in evaluation mode.
        example: raw input ``(N, …)``.
    """
    made: dict[int, tuple[str, Tensor]] = {}  # holds the tensors, so that no id is used twice
    found: dict[str, nn.Module] = {}
    handles = []
    for name, module in model.named_modules():
        if isinstance(module, WEIGHTED):
            handles.append(module.register_forward_hook(_noting(made, name)))
        elif isinstance(module, NORMS) and module.affine and module.running_var is not None:
            handles.append(module.register_forward_pre_hook(_looking(made, found, module)))
    try:
        with evaluating(model), torch.no_grad():
            model(example)
    finally:
        for handle in handles:
            handle.remove()
    return found


def _noting(made: dict[int, tuple[str, Tensor]], name: str):  # type: ignore[no-untyped-def]  # noqa: ANN202
    def hook(_module: nn.Module, _inputs: object, output: Tensor) -> None:
        made[id(output)] = (name, output)

    return hook


def _looking(made: dict[int, tuple[str, Tensor]], found: dict[str, nn.Module], norm: nn.Module):  # type: ignore[no-untyped-def]  # noqa: ANN202
    def hook(_module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        known = made.get(id(inputs[0]))
        if known is not None:
            found[known[0]] = norm

    return hook


def fold_scale(norm: nn.Module | None, layer: nn.Module) -> Tensor:
    """Factor ``γ/√(σ² + ε)`` on each output channel ``(out,)`` when the norm behind is folded into the layer."""
    weight = layer.weight
    assert isinstance(weight, Tensor)
    if norm is None:
        return weight.new_ones(weight.shape[0])
    assert isinstance(norm, nn.BatchNorm1d | nn.BatchNorm2d) and norm.running_var is not None
    return norm.weight * (norm.running_var + norm.eps).rsqrt()


def fold_bias(norm: nn.Module | None, layer: nn.Module) -> Tensor | None:
    """Bias ``β + (b - μ)·γ/√(σ² + ε)`` of each output channel ``(out,)`` of the folded layer; None without any."""
    bias = layer.bias
    if norm is None:
        return bias if isinstance(bias, Tensor) else None
    assert isinstance(norm, nn.BatchNorm1d | nn.BatchNorm2d) and norm.running_mean is not None
    shift = -norm.running_mean if not isinstance(bias, Tensor) else bias - norm.running_mean
    return norm.bias + shift * fold_scale(norm, layer)


def layers_of(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Convolutions and linear layers, by name."""
    for name, module in model.named_modules():
        if isinstance(module, WEIGHTED):
            yield name, module
