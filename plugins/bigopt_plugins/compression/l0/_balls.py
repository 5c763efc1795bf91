"""Projections onto balls, of weights and of whole units."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from bigopt_plugins.compression._layers import weight_of
from bigopt_plugins.compression.l0._units import Counter, Units


def project_l1(values: Tensor, radius: float) -> Tensor:
    """The nearest vector with ``Σ|v| ≤ radius`` (Duchi et al. 2008).

    ``sign(v) · max(|v| − θ, 0)`` with ``θ = (Σ_{i≤ρ} μ_i − radius)/ρ``, where μ are the magnitudes in descending order
    and ρ the largest j with ``μ_j > (Σ_{i≤j} μ_i − radius)/j``. As in their second algorithm nothing is sorted: θ
    grows, and what falls under it is left out, until nothing more does.
    """
    size = values.abs()
    if float(size.sum()) <= radius:
        return values.clone()
    active = size[size > 0].double()
    while True:
        theta = (active.sum() - radius) / len(active)
        left = active[active > theta]
        if len(left) == len(active):
            return values.sign() * (size - theta.to(size.dtype)).clamp_min(0)
        active = left


def project_l0(values: Tensor, k: int) -> Tensor:
    """The nearest vector with at most k non-zeros: the k largest magnitudes (hard thresholding)."""
    if k >= values.numel():
        return values.clone()
    kept = torch.zeros_like(values)
    index = values.abs().topk(k).indices
    kept[index] = values[index]
    return kept


class WeightBall:
    """All weights of some layers as one vector.

    Under ``l0`` distances are measured in units of each layer's root mean square before the step: with one unit for
    all, wide layers, whose weights are small, would lose nearly everything.

    Args:
        layers: whose weights.
        norm: ``l0`` or ``l1``.
        rest: weights of the model that are not in the vector; they count towards an ``l0`` radius.
    """

    def __init__(self, layers: Sequence[nn.Module], norm: str, rest: int) -> None:
        self.weights = [weight_of(layer) for layer in layers]
        self.norm = norm
        self.rest = rest
        scales = [
            weight.detach().square().mean().sqrt().clamp_min(1e-30).expand(weight.numel()) for weight in self.weights
        ]
        self.scale = torch.cat(scales) if norm == "l0" else None

    def size(self) -> float:
        """What the ball bounds: number of non-zeros, or ``Σ|w|``."""
        vector = self._vector()
        return float((vector != 0).sum()) + self.rest if self.norm == "l0" else float(vector.abs().sum())

    def least(self) -> float:
        """The smallest size there is."""
        return self.rest if self.norm == "l0" else 0.0

    @torch.no_grad()
    def project(self, radius: float) -> None:
        """Moves the weights to the nearest point of the ball."""
        vector = self._vector()
        if self.scale is None:
            new = project_l1(vector, radius)
        else:
            scale = self.scale.to(vector.device)
            new = torch.where(project_l0(vector / scale, int(radius) - self.rest) != 0, vector, 0.0)
        for weight, part in zip(self.weights, new.split([w.numel() for w in self.weights]), strict=True):
            weight.copy_(part.view_as(weight))

    def _vector(self) -> Tensor:
        return torch.cat([weight.detach().reshape(-1) for weight in self.weights])


class UnitBall:
    """Units, each with all weights that read it as one vector.

    Norms are measured in units of their group's root mean square before the step: with one unit for all, layers with
    few weights per unit would lose every unit first. Under ``l1`` the sum of the norms is bounded, so that whole
    vectors vanish (the ball of the group lasso); under ``l0`` the number of weights that depend on the units left is
    bounded, and the units with the smallest norm go first. One unit of each group stays.

    Args:
        model: has the layers.
        found: the units.
        norm: ``l0`` or ``l1``.
    """

    def __init__(self, model: nn.Module, found: Sequence[Units], norm: str) -> None:
        self.found = list(found)
        self.norm = norm
        self.counter = Counter(model, self.found)
        self.readers = [
            [
                (weight_of(model.get_submodule(name)), torch.tensor(channels), torch.tensor(behind))
                for name, (channels, behind) in units.reads.items()
            ]
            for units in self.found
        ]
        self.scales = [1.0] * len(self.found)
        self.scales = [float(norms.square().mean().sqrt().clamp_min(1e-30)) for norms in self.norms()]

    def size(self) -> float:
        """What the ball bounds: number of weights, or the sum of the units' norms."""
        norms = self.norms()
        if self.norm == "l1":
            return float(torch.cat(norms).sum())
        return float(self.counter((torch.cat(norms) > 0).float()))

    def least(self) -> float:
        """The smallest size there is."""
        if self.norm == "l1":
            return 0.0
        return float(self.counter(torch.cat([torch.eye(units.count)[0] for units in self.found])))

    @torch.no_grad()
    def norms(self) -> list[Tensor]:
        """Relative Euclidean norm of each unit's vector, by group."""
        result = []
        for units, readers, scale in zip(self.found, self.readers, self.scales, strict=True):
            squares = torch.zeros(units.count)
            for weight, channels, behind in readers:
                slices = weight.detach()[:, channels].transpose(0, 1).flatten(1).cpu()
                squares.index_add_(0, behind, slices.square().sum(1))
            result.append(squares.sqrt() / scale)
        return result

    @torch.no_grad()
    def project(self, radius: float) -> None:
        """Moves the weights into the ball."""
        norms = self.norms()
        if self.norm == "l1":
            flat = torch.cat(norms)
            factors = project_l1(flat, radius) / flat.clamp_min(1e-30)
        else:
            factors = self._kept(radius).float()
        for readers, factor in zip(self.readers, factors.split([units.count for units in self.found]), strict=True):
            for weight, channels, behind in readers:
                weight[:, channels] *= factor[behind].reshape(1, -1, *(1,) * (weight.ndim - 2)).to(weight.device)

    def _kept(self, radius: float) -> Tensor:
        """Which units stay: as many of the strongest as fit."""
        scores = self.norms()
        ranked = torch.cat([self._protected(score) for score in scores])
        order = ranked.argsort(descending=True, stable=True)
        low, high = len(scores), len(order)  # one of each group comes first
        while low < high:
            middle = (low + high + 1) // 2
            fits = float(self.counter(_mask(order, middle))) <= radius
            low, high = (middle, high) if fits else (low, middle - 1)
        return _mask(order, low) > 0

    @staticmethod
    def _protected(scores: Tensor) -> Tensor:
        scores = scores.clone()
        scores[scores.argmax()] = torch.inf
        return scores


def _mask(order: Tensor, count: int) -> Tensor:
    mask = torch.zeros(len(order))
    mask[order[:count]] = 1
    return mask


def closed_units(ball: UnitBall) -> Mapping[str, list[int]]:
    """Units that nothing reads any more, by group; the strongest of a group is never among them."""
    closed = {}
    for units, norms in zip(ball.found, ball.norms(), strict=True):
        gone = (norms == 0).nonzero().flatten().tolist()
        closed[units.name] = [unit for unit in gone if unit != int(norms.argmax())]
    return closed
