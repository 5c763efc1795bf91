"""The gates of a model with what they cost, and the multiplier of their constraint."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from bigopt_plugins.compression._layers import WEIGHTED, swap, weight_of
from bigopt_plugins.compression.l0._hard_concrete import GatedInput, GatedWeight, HardConcrete, probability, settled
from bigopt_plugins.compression.l0._units import Counter, Units, gate_index

OBJECTIVE = "l0/objective"
"""What the best epoch is chosen by: the loss on validation plus what the sparsity still costs, in nats."""


class Control(nn.Module):
    """Trained and checkpointed beside the model, whose layers share the gates.

    Attributes:
        gates: one set for each group of units, or for each layer.
        names: of these groups or layers.
        total: weights of the dense model's convolutions and linear layers.
        multiplier: of the constraint, in nats for the whole model.
        warm: share of the penalty that acts, from 0 to 1.
    """

    multiplier: Tensor
    warm: Tensor

    def __init__(self, gates: Sequence[HardConcrete], names: Sequence[str], counter: Counter | None, rest: int) -> None:
        super().__init__()
        self.gates = nn.ModuleList(gates)
        self.names = tuple(names)
        self.counter = counter
        self.rest = rest
        self.register_buffer("multiplier", torch.zeros(()))
        self.register_buffer("warm", torch.zeros(()))
        self.total = int(self.count([torch.ones_like(gate.log_alpha) for gate in gates]))

    def expected(self) -> Tensor:
        """Expected number of weights, differentiable."""
        return self.count([probability(gate.log_alpha) for gate in self._sets()])

    def left(self) -> int:
        """Number of weights that the settled gates leave."""
        return round(float(self.count([mask.float() for mask in self.kept()])))

    def least(self) -> int:
        """The smallest number of weights that gates could leave: one unit of each group, or what has no gates."""
        first = [torch.zeros_like(gate.log_alpha) for gate in self._sets()]
        if self.counter is not None:
            for mask in first:
                mask[0] = 1
        return round(float(self.count(first)))

    def kept(self) -> list[Tensor]:
        """Which settled gates are open, set by set; of units, one in each group stays whatever its gate says."""
        with torch.no_grad():
            masks = [settled(gate.log_alpha) > 0 for gate in self._sets()]
        if self.counter is not None:
            for mask, gate in zip(masks, self._sets(), strict=True):
                mask[gate.log_alpha.argmax()] = True
        return masks

    def count(self, probabilities: Sequence[Tensor]) -> Tensor:
        """Expected number of weights given the probability of each gate."""
        flat = torch.cat([p.reshape(-1) for p in probabilities])
        return self.counter(flat) if self.counter is not None else flat.sum() + self.rest

    def draw(self) -> None:
        """Draws the noise of one step."""
        for gate in self._sets():
            gate.draw()

    @torch.no_grad()
    def ascend(self, target: float, rate: float) -> None:
        """One step up of the multiplier; back to 0 as soon as the constraint holds (Gallego-Posada et al. 2022)."""
        violation = self.expected() / self.total - target
        self.multiplier.copy_(torch.where(violation > 0, self.multiplier + rate * violation, 0.0))

    @torch.no_grad()
    def trim(self, k: int) -> int:
        """Closes the least probable gates until at most k weights are left; returns how many gates it closed."""
        if self.left() <= k:
            return 0
        kept = torch.cat([mask.reshape(-1) for mask in self.kept()])
        strength = torch.cat([self._ranked(gate.log_alpha) for gate in self._sets()])
        order = kept.nonzero().flatten()
        order = order[strength[order].argsort(stable=True)]
        low, high = 0, len(order)
        while low < high:
            middle = (low + high) // 2
            mask = kept.float()
            mask[order[:middle]] = 0
            low, high = (low, middle) if float(self.count([mask])) <= k else (middle + 1, high)
        start = 0
        for gate in self._sets():
            here = order[:low] - start
            gate.close(here[(here >= 0) & (here < gate.log_alpha.numel())])
            start += gate.log_alpha.numel()
        return low

    def _ranked(self, log_alpha: Tensor) -> Tensor:
        """By what gates are closed, lowest first; the last of a group of units comes after all others."""
        flat = log_alpha.detach().reshape(-1).clone()
        if self.counter is not None:
            flat[flat.argmax()] = torch.inf
        return flat

    def _sets(self) -> list[HardConcrete]:
        return list(self.gates)  # type: ignore[arg-type]


def gate_units(model: nn.Module, found: list[Units], generator: torch.Generator) -> Control:
    """Puts gates on what every layer reads of these units, in place."""
    counter = Counter(model, found)
    gates = [HardConcrete((units.count,), generator) for units in found]
    new: dict[nn.Module, nn.Module] = {}
    for name in dict.fromkeys(layer for units in found for layer in units.reads):
        sets, index = gate_index(model, found, name)
        layer = model.get_submodule(name)
        new[layer] = GatedInput(layer, [gates[place] for place in sets], index)
    swap(model, new)
    return Control(gates, [units.name for units in found], counter, 0)


def gate_weights(model: nn.Module, layers: dict[str, nn.Module], generator: torch.Generator) -> Control:
    """Puts a gate on every weight of these layers, in place."""
    rest = other_weights(model, list(layers.values()))
    gates = [HardConcrete(weight_of(layer).shape, generator) for layer in layers.values()]
    swap(model, {layer: GatedWeight(layer, gate) for layer, gate in zip(layers.values(), gates, strict=True)})
    return Control(gates, list(layers), None, rest)


def other_weights(model: nn.Module, layers: Sequence[nn.Module]) -> int:
    """Number of weights in convolutions and linear layers that are not among these."""
    rest = [module for module in model.modules() if isinstance(module, WEIGHTED) and module not in layers]
    return sum(weight_of(layer).numel() for layer in rest)
