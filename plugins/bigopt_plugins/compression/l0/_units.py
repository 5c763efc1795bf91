"""Units whose removal is the same as a gate of 0 at everything that reads them, and how many weights depend on them."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from bigopt.surgery import ChannelGroup, Groups
from bigopt.vocabulary.errors import RequestError
from bigopt.vocabulary.network import Network
from bigopt.vocabulary.run import Run, recording
from bigopt_plugins.compression._layers import WEIGHTED, hindrance, weight_of
from bigopt_plugins.compression._weights import tell_left

HARMLESS = (*WEIGHTED, nn.BatchNorm1d, nn.BatchNorm2d, nn.PReLU)
"""Modules that treat each channel on its own, or mix channels by weights that a gate can take away."""


@dataclass
class Units:
    """Units of one group: channels, neurons or heads.

    Attributes:
        name: the group's root layer; of features their reader's name with ``/inputs``.
        count: number of units.
        reads: by the name of each layer that reads them: its input channels, and the unit behind each.
        makes: by the name of each layer that computes them: its output channels, and the unit behind each.
        features: whether these are single inputs of a linear layer, which may belong to units as well.
    """

    name: str
    count: int
    reads: dict[str, tuple[list[int], list[int]]] = field(default_factory=dict)
    makes: dict[str, tuple[list[int], list[int]]] = field(default_factory=dict)
    features: bool = False


def find_units(model: nn.Module, groups: Groups) -> tuple[list[Units], dict[str, str]]:
    """The groups whose units can have gates, and why the others cannot."""
    found, left = [], dict(groups.unhandled)
    names = {module: name for name, module in model.named_modules()}
    apart = {id(p) for module in model.modules() if getattr(module, "channelwise", False) for p in module.parameters()}
    for group in groups:
        units = _units(group, names, apart)
        reason = units if isinstance(units, str) else _unsafe(model, units)
        if reason is None and isinstance(units, Units):
            found.append(units)
        else:
            left[group.name] = str(reason)
    return found, left


def _units(group: ChannelGroup, names: dict[nn.Module, str], apart: set[int]) -> Units | str:
    """What reads and makes the units, or why that cannot be said; ``apart`` are parameters of one channel each."""
    units = Units(group.name, group.units)
    for item in group.raw:
        module = item.dep.target.module
        if isinstance(module, nn.Parameter):
            if id(module) in apart:
                continue
            return "a free parameter depends on it"
        if type(module).__module__.startswith("torch_pruning"):
            continue  # operations, not layers
        if not isinstance(module, HARMLESS):
            return f"{type(module).__name__} {names[module]} mixes its channels"
        if not isinstance(module, WEIGHTED):
            continue
        if item.root_idxs is None or None in item.root_idxs:
            return f"which channels {names[module]} reads cannot be told"
        side = units.reads if "in_channels" in item.dep.handler.__name__ else units.makes
        index, behind = side.setdefault(names[module], ([], []))
        index += [int(i) for i in item.idxs]
        behind += [int(i) // group.unit for i in item.root_idxs]
    return units


def _unsafe(model: nn.Module, units: Units) -> str | None:
    """Why gates at the readers would not do; None if they do."""
    if not units.reads:
        return "no layer with weights reads it"
    for name in units.reads:
        layer = model.get_submodule(name)
        reason = hindrance(model, layer)
        if reason is None and getattr(layer, "groups", 1) > 1:
            reason = "it is a grouped convolution"
        if reason is not None:
            return f"{name} reads it, and {reason}"
    return None


def find_features(run: Run, model: nn.Module, found: list[Units]) -> list[Units]:
    """Inputs of linear layers that are no units, each on its own.

    They are the model's own inputs, where a linear layer comes first, and the positions of a map that was flattened,
    of which a unit has several.
    """
    with torch.no_grad(), recording(model, [f"{name}/input" for name, _ in _weighted(model)]) as seen:
        model(example_of(run))
    first = next(iter(seen)).removesuffix("/input")
    features = []
    for name, layer in _weighted(model):
        if type(layer) is not nn.Linear or hindrance(model, layer) is not None or run.options.ignores(name):
            continue
        behind = [units.reads[name][1] for units in found if name in units.reads]
        flattened = any(len(each) > len(set(each)) for each in behind)
        itself = any(name in units.reads and name in units.makes for units in found)
        if flattened and not itself or name == first and not behind:
            every = list(range(layer.in_features))
            features.append(Units(f"{name}/inputs", len(every), {name: (every, every)}, features=True))
    return features


def _weighted(model: nn.Module) -> list[tuple[str, nn.Module]]:
    return [(name, layer) for name, layer in model.named_modules() if isinstance(layer, WEIGHTED)]


def gate_index(model: nn.Module, found: list[Units], layer: str) -> tuple[list[int], Tensor]:
    """Which sets of gates a layer's inputs have.

    Returns:
        positions of the sets in ``found``, and for each input channel the positions of its unit's and, in a second
        row, its own gate among these sets' gates, from 1; 0 for none. There is no second row without such gates.
    """
    sets = [place for place, units in enumerate(found) if layer in units.reads]
    weight = weight_of(model.get_submodule(layer))
    rows = 2 if any(found[place].features for place in sets) else 1
    index = torch.zeros(rows, weight.shape[1], dtype=torch.long)
    offset = 1
    for place in sets:
        channels, behind = found[place].reads[layer]
        index[int(found[place].features), channels] = torch.tensor(behind) + offset
        offset += found[place].count
    return sets, index


class Counter(nn.Module):
    """How many weights of convolutions and linear layers are left, given how probable each unit is.

    A weight is there if the unit that it reads and the unit that it makes are. With independent gates the expected
    number in a layer with ``k`` weights a connection is ``k·[Σ_o p_o · Σ_i p_i + Σ_u a_u b_u (p_u − p_u²)]``: the
    second sum is for connections from a unit to itself (across a residual), of which there are ``a_u b_u``. Where
    inputs have gates of their own, ``Σ_i p_i`` is ``Σ_i p_i q_i`` with ``q_i`` their probabilities.

    Args:
        model: dense.
        found: the units; their probabilities are joined in this order.
    """

    outputs: Tensor
    inputs: Tensor
    each: Tensor

    def __init__(self, model: nn.Module, found: list[Units]) -> None:
        super().__init__()
        rows = _weighted(model)
        self.pairs: list[tuple[int, Tensor]] = []
        width = 1 + sum(units.count for units in found)
        outputs, inputs = torch.zeros(len(rows), width), torch.zeros(len(rows), width)
        for row, (name, layer) in enumerate(rows):
            weight = weight_of(layer)
            places, index = gate_index(model, found, name)
            if len(index) > 1:
                # From positions among this layer's gates to those among all.
                local = [torch.arange(found[place].count) + _start(found, place) for place in places]
                self.pairs.append((row, torch.cat([torch.zeros(1, dtype=torch.long), *local])[index]))
            out, into = torch.zeros(weight.shape[0], dtype=torch.long), torch.zeros(weight.shape[1], dtype=torch.long)
            offset = 1
            for units in found:
                if units.features:
                    offset += units.count
                    continue
                for index, (channels, behind) in ((out, units.makes.get(name, ([], []))), (into, _reads(units, name))):
                    index[channels] = torch.tensor(behind, dtype=torch.long) + offset
                offset += units.count
            outputs[row] = out.bincount(minlength=width)
            inputs[row] = into.bincount(minlength=width)
        self.register_buffer("outputs", outputs, persistent=False)
        self.register_buffer("inputs", inputs, persistent=False)
        each = [weight_of(layer)[0, 0].numel() for _, layer in rows]
        self.register_buffer("each", torch.tensor(each, dtype=torch.float), persistent=False)

    def forward(self, probabilities: Tensor) -> Tensor:
        """Expected number of weights, from the probability of each unit ``(U,)``; 0s and 1s give the exact number."""
        p = torch.cat([probabilities.new_ones(1), probabilities])
        inputs = self.inputs @ p
        for row, pairs in self.pairs:
            own, unit = p[pairs.to(p.device)]
            inputs = inputs.index_copy(0, torch.tensor([row], device=p.device), (own * unit).sum()[None])
        both = (self.outputs @ p) * inputs + (self.outputs * self.inputs) @ (p - p**2)
        return (self.each * both).sum()


def _start(found: list[Units], place: int) -> int:
    """Position of a set's first gate among all gates, from 1."""
    return 1 + sum(units.count for units in found[:place])


def _reads(units: Units, name: str) -> tuple[list[int], list[int]]:
    return units.reads.get(name, ([], []))


def gateable_units(run: Run, model: Network, inputs: bool = False) -> list[Units]:
    """The units of a model that can have gates, and inputs where they are asked for; the others are named in notes.

    Raises:
        RequestError: there are none, or ``strict`` and a group cannot be handled.
    """
    groups = Groups(model, example_of(run), run.options.ignore, run.options.strict)
    found, left = find_units(model, groups)
    tell_left(run, left)
    if inputs:
        found += find_features(run, model, found)
    if not found:
        raise RequestError("l0: no group of units can be removed by gates; gates=weights works on every layer")
    return found


def example_of(run: Run) -> Tensor:
    """Two raw training samples."""
    return run.data.train.take(torch.arange(min(2, len(run.data.train))))
