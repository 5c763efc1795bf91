"""Groups of folded weights: their norms, their penalty, and its proximal step."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from bigopt_plugins.compression._channels import Side, Units, fold_bias, fold_scale

TINY = 1e-24
"""Under the square root, so that the gradient of a vanished group is 0 and not undefined."""

STEEPEST = 10.0
"""Largest factor by which reweighting raises a threshold."""

Norms = dict[str, nn.Module]
"""The batch norm behind each layer, by the layer's name."""


class Family(Protocol):
    """Groups of one kind that can be told apart by an index."""

    sizes: Tensor
    """Number of folded weights of each group ``(G,)``."""

    def squares(self) -> Tensor:
        """Sum of squares of each group's folded weights ``(G,)``, differentiable."""
        ...

    def scale(self, factors: Tensor) -> None:
        """Multiplies each group's folded weights by its factor ``(G,)``."""
        ...


def group_norms(family: Family) -> Tensor:
    """``‖w_g‖₂`` of each group ``(G,)``."""
    return (family.squares() + TINY).sqrt()


def penalty(families: Sequence[Family], weights: Sequence[float] | None = None) -> Tensor:
    """``Σ_f λ_f Σ_g √|g| · ‖w_g‖₂`` over all groups g of all families f; λ is 1 without weights."""
    terms = [(family.sizes.sqrt().to(norms.device) * norms).sum() for family, norms in _with_norms(families)]
    each = weights if weights is not None else [1.0] * len(terms)
    return (
        torch.stack([weight * term for weight, term in zip(each, terms, strict=True)]).sum()
        if terms
        else torch.zeros(())
    )


def _with_norms(families: Iterable[Family]) -> Iterator[tuple[Family, Tensor]]:
    for family in families:
        yield family, group_norms(family)


@torch.no_grad()
def shrink(
    families: Iterable[Family],
    thresholds: Iterable[float],
    most: float = 1.0,
    references: Sequence[float] | None = None,
) -> None:
    """The proximal step of ``Σ_f t_f Σ_g √|g| ‖w_g‖₂``, one family after the other.

    Within a family the groups do not overlap, and the step is exact: ``w_g ← w_g · max(0, 1 - t_f √|g|/‖w_g‖)``. It
    takes ``t_f`` off the root mean square of each group.

    Args:
        families: changed in place.
        thresholds: ``t_f`` of each.
        most: share of a family's groups that may be at zero; once that many are, the strongest ones are left alone.
        references: a root mean square ``r_f`` of each; the threshold of a group with root mean square ``r_g`` is then
            multiplied by ``r_f/2r_g``, at most :data:`STEEPEST` (reweighting).
    """
    for place, ((family, norms), threshold) in enumerate(zip(_with_norms(families), thresholds, strict=True)):
        root = family.sizes.sqrt().to(norms.device)
        each = threshold * root
        if references is not None:
            each = each * (references[place] / 2 * root / norms).clamp_max(STEEPEST)
        factors = (1 - each / norms).clamp_min(0)
        spared = len(norms) - int(most * len(norms) + 1e-9)
        if spared and int((factors > 0).sum()) <= spared:
            factors[(norms / root).topk(spared).indices] = 1
        family.scale(factors)


@torch.no_grad()
def magnitudes(family: Family) -> Tensor:
    """Root mean square of each group's folded weights ``(G,)``: norms that groups of all sizes can be compared by."""
    norms = family.squares().clamp_min(0).sqrt()
    return norms / family.sizes.sqrt().to(norms.device)


class Filters:
    """Units with everything that makes them: rows of all layers that are tied together, biases included.

    The bias belongs to the group, since a filter that has lost all but its bias still speaks.
    """

    def __init__(self, bundle: Sequence[Units], norms: Norms) -> None:
        self.units = bundle[0].count
        self.sides = [side for units in bundle for side in units.makes]
        self.norms = norms
        self.sizes = torch.zeros(self.units)
        for side in self.sides:
            row = side.module.weight[0].numel()  # type: ignore[index, union-attr]
            bias = fold_bias(norms.get(side.name), side.module) is not None
            self.sizes += side.count(self.units) * (row + bias)

    def squares(self) -> Tensor:
        """See :class:`Family`."""
        return torch.stack([self._squares(side) for side in self.sides]).sum(0)

    def _squares(self, side: Side) -> Tensor:
        norm = self.norms.get(side.name)
        rows = side.module.weight.flatten(1).square().sum(1) * fold_scale(norm, side.module).square()  # type: ignore[union-attr, operator]
        bias = fold_bias(norm, side.module)
        return side.sums(rows if bias is None else rows + bias.square(), self.units)

    def scale(self, factors: Tensor) -> None:
        """See :class:`Family`; behind a layer with batch norm only the norm's scale and shift can do it."""
        for side in self.sides:
            index, each = side.spread(factors)
            scale_rows(side.module, self.norms.get(side.name), index, each)


class Channels:
    """Units with everything that reads them: columns of all layers behind."""

    def __init__(self, bundle: Sequence[Units], norms: Norms) -> None:
        self.units = bundle[0].count
        self.sides = [side for units in bundle for side in units.reads]
        self.norms = norms
        self.sizes = torch.zeros(self.units)
        for side in self.sides:
            self.sizes += side.count(self.units) * side.module.weight[:, 0].numel()  # type: ignore[index, union-attr]

    def squares(self) -> Tensor:
        """See :class:`Family`."""
        return torch.stack([self._squares(side) for side in self.sides]).sum(0)

    def _squares(self, side: Side) -> Tensor:
        scaled = _scaled_squares(side.module, self.norms.get(side.name))
        return side.sums(scaled.transpose(0, 1).flatten(1).sum(1), self.units)

    def scale(self, factors: Tensor) -> None:
        """See :class:`Family`."""
        for side in self.sides:
            weight = side.module.weight
            index, each = side.spread(factors)
            weight[:, index] *= each.reshape(1, -1, *(1,) * (weight.ndim - 2))  # type: ignore[index, operator, union-attr]


class Shapes:
    """Positions of a convolution's kernel in each input channel, over all its filters."""

    def __init__(self, name: str, layer: nn.Module, norms: Norms) -> None:
        self.name = name
        self.layer = layer
        self.norm = norms.get(name)
        weight = layer.weight
        assert isinstance(weight, Tensor)
        self.sizes = torch.full((weight[0].numel(),), float(len(weight)))

    def squares(self) -> Tensor:
        """See :class:`Family`."""
        return _scaled_squares(self.layer, self.norm).sum(0).flatten()

    def scale(self, factors: Tensor) -> None:
        """See :class:`Family`."""
        weight = self.layer.weight
        assert isinstance(weight, Tensor)
        weight *= factors.reshape(weight.shape[1:])


@dataclass
class Branches:
    """Residual branches, each with all its layers.

    Attributes:
        names: of the branches.
        layers: the layers of each branch, by name.
        norms: the batch norm behind each layer.
    """

    names: Sequence[str]
    layers: Sequence[dict[str, nn.Module]]
    norms: Norms

    def __post_init__(self) -> None:
        counts = [sum(_size(layer, self.norms.get(name)) for name, layer in each.items()) for each in self.layers]
        self.sizes = torch.tensor(counts, dtype=torch.float)

    def squares(self) -> Tensor:
        """See :class:`Family`."""
        return torch.stack([self._squares(each) for each in self.layers])

    def _squares(self, layers: dict[str, nn.Module]) -> Tensor:
        total = []
        for name, layer in layers.items():
            norm = self.norms.get(name)
            total.append(_scaled_squares(layer, norm).sum())
            bias = fold_bias(norm, layer)
            if bias is not None:
                total.append(bias.square().sum())
        return torch.stack(total).sum()

    def scale(self, factors: Tensor) -> None:
        """See :class:`Family`."""
        for factor, layers in zip(factors, self.layers, strict=True):
            for name, layer in layers.items():
                scale_rows(layer, self.norms.get(name), slice(None), factor)


def scale_rows(layer: nn.Module, norm: nn.Module | None, index: Tensor | slice, factors: Tensor) -> None:
    """Multiplies folded filters with their biases: through the batch norm behind, or in the layer itself.

    Scaling the weights in front of a batch norm would do nothing: its statistics follow.
    """
    target = norm if norm is not None else layer
    for tensor in (target.weight, target.bias):
        if isinstance(tensor, Tensor):
            tensor[index] *= factors.reshape(-1, *(1,) * (tensor.ndim - 1)) if factors.ndim else factors


def _scaled_squares(layer: nn.Module, norm: nn.Module | None) -> Tensor:
    """Squares of the folded weights, in the weight's shape."""
    weight = layer.weight
    assert isinstance(weight, Tensor)
    scale = fold_scale(norm, layer).reshape(-1, *(1,) * (weight.ndim - 1))
    return (weight * scale).square()


def _size(layer: nn.Module, norm: nn.Module | None) -> int:
    bias = fold_bias(norm, layer)
    return layer.weight.numel() + (bias.numel() if bias is not None else 0)  # type: ignore[operator, union-attr]
