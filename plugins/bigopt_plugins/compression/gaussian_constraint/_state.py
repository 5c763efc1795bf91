"""The layers that have a sparse representation, and their supports."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from bigopt_plugins.compression._channels import Units
from bigopt_plugins.compression.gaussian_constraint._operator import Operator, smoothed_l0


@dataclass
class State:
    """Layers with their operators; supports once something was cut.

    Attributes:
        layers: by name.
        operators: by layer.
        scales: root mean square of z when the state was made, by layer: the unit of σ.
        keep: where z may differ from zero, by layer.
        reach: share of the penalty that acts, by layer; less than 1 where the training is too short for the loss to
            hold weights up against all of it.
        silent: units that make nothing any more, with the mask ``(count,)`` of the dead ones.
        back: brings a weight back to its support, by layer; made when first needed.
        errors: ``‖w - ŵ‖/‖w‖`` of the last cut, by layer.
    """

    layers: dict[str, nn.Module]
    operators: dict[str, Operator]
    scales: dict[str, float] = field(default_factory=dict)
    keep: dict[str, Tensor] = field(default_factory=dict)
    silent: list[tuple[Units, Tensor]] = field(default_factory=list)
    back: dict[str, Callable[[Tensor], Tensor]] = field(default_factory=dict)
    errors: dict[str, float] = field(default_factory=dict)
    reach: dict[str, float] = field(default_factory=dict)

    @torch.no_grad()
    def measure(self) -> None:
        """Takes the scales from the weights as they are."""
        self.scales = {name: float(self.z(name).square().mean().sqrt()) for name in self.layers}

    @torch.no_grad()
    def limit(self, travel: float) -> None:
        """Sets the shares of the penalty, from how far the optimizer's steps can take a weight in all."""
        for name, layer in self.layers.items():
            size = float(weight_of(layer).square().mean().sqrt())
            self.reach[name] = min(1.0, travel / max(size, 1e-12))

    def of(self, model: nn.Module) -> bool:
        """Whether these are layers of this very model."""
        modules = set(model.modules())
        return all(layer in modules for layer in self.layers.values())

    def z(self, name: str) -> Tensor:
        """D w of a layer."""
        return self.operators[name].sparse(weight_of(self.layers[name]))

    def density(self, sigma: float) -> Tensor:
        """Smoothed share of entries of z that are not zero, over all layers; σ in units of each layer's scale."""
        count = sum(weight_of(layer).numel() for layer in self.layers.values())
        terms = [smoothed_l0(self.z(name), max(sigma * self.scales[name], 1e-12)) for name in self.layers]
        return torch.stack(terms).sum() / count

    @torch.no_grad()
    def descend(self, sigma: float, rate: float) -> None:
        """One step of steepest descent on the Gaussian function in every layer, in place; σ as for :meth:`density`."""
        for name, layer in self.layers.items():
            weight = weight_of(layer)
            share = min(1.0, rate * self.reach.get(name, 1.0))
            weight -= share * self.operators[name].descent(weight, max(sigma * self.scales[name], 1e-12))

    def relative(self, name: str) -> Tensor:
        """``|z|`` of a layer in units of its scale."""
        return self.z(name).detach().abs() / max(self.scales[name], 1e-12)

    @torch.no_grad()
    def cut(self, keep: Mapping[str, Tensor]) -> None:
        """Restricts z to these supports, and replaces each weight by what is rebuilt from it."""
        for name, mask in keep.items():
            weight, operator = weight_of(self.layers[name]), self.operators[name]
            self.keep[name] = mask & self.keep[name] if name in self.keep else mask
            self.back.pop(name, None)
            rebuilt = operator.rebuild(operator.cut(weight, self.keep[name])).to(weight.dtype)
            self.errors[name] = float((weight - rebuilt).norm() / weight.norm().clamp_min(1e-12))
            weight.copy_(rebuilt)

    @torch.no_grad()
    def project(self) -> None:
        """Takes what left the supports off again, in place; silent units stay silent."""
        for name, mask in self.keep.items():
            weight = weight_of(self.layers[name])
            if mask.device != weight.device:
                mask = self.keep[name] = mask.to(weight.device)
                self.back.pop(name, None)
            if name not in self.back:
                self.back[name] = self.operators[name].projection(mask)
            weight.copy_(self.back[name](weight))
        for units, dead in self.silent:
            units.silence(dead)

    def dead(self, units: Units) -> Tensor:
        """Units ``(count,)`` whose rebuilt weights vanished: all that makes them, or all that reads them."""
        makes = [self._empty(side.name, side.module, 0) for side in units.makes]
        reads = [self._empty(side.name, side.module, 1) for side in units.reads]
        gone = torch.zeros(units.count, dtype=torch.bool)
        for sides, empty in ((units.makes, makes), (units.reads, reads)):
            if sides and all(each is not None for each in empty):
                alive = torch.zeros(units.count, dtype=torch.bool)
                for side, each in zip(sides, empty, strict=True):
                    assert each is not None
                    alive[side.unit[~each[side.index]]] = True
                gone |= ~alive
        return gone

    def _empty(self, name: str, module: nn.Module, axis: int) -> Tensor | None:
        """Which rows (0) or columns (1) of a weight are zero; None where the support cannot tell."""
        if name not in self.keep:
            weight = weight_of(module).detach()
            return (weight == 0).transpose(0, axis).flatten(1).all(1).cpu()
        along = self.operators[name].matrix is not None and weight_of(self.layers[name]).ndim == 2
        if axis == 1 and along:
            return None  # the operator runs along the inputs: a column of z is no column of w
        return ~self.keep[name].transpose(0, axis).flatten(1).any(1).cpu()


def weight_of(layer: nn.Module) -> Tensor:
    """A layer's weight."""
    weight = layer.weight
    assert isinstance(weight, Tensor)
    return weight
