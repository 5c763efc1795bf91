"""A compression plugin: a Part with a strength; its constructor's typed signature is its configuration.

The core's driver makes one-shot, iterative and gradual schedules, the sensitivity scan and ``max_drop`` out of its
``apply``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from bigopt import Fit, Part, RequestError, Run


class Mask(nn.Module):
    """Keeps weights at zero while they are trained."""

    kept: Tensor

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.register_buffer("kept", torch.ones_like(weight))

    def forward(self, weight: Tensor) -> Tensor:
        """The weights that are kept, zeros elsewhere."""
        return weight * self.kept


class MyPlugin(Part):
    """Sets the smallest weights of every layer to zero (Han et al. 2015, arXiv:1506.02626).

    Args:
        ratio: share of the weights to set to zero, in [0, 1).

    Raises:
        RequestError: an argument is out of range.
    """

    strengths: ClassVar[tuple[float, ...]] = (0.25, 0.5, 0.75, 0.9)

    def __init__(self, ratio: float = 0.5) -> None:
        if not 0 <= ratio < 1:
            raise RequestError(f"ratio: got {ratio}, expected a share in [0, 1)")
        self.ratio = ratio

    def strength(self) -> float:
        """The configured ratio."""
        return self.ratio

    def layers(self, run: Run) -> Sequence[str]:
        """Convolutions and fully connected layers that ``ignore`` does not name."""
        return [
            name
            for name, module in run.model.named_modules()
            if isinstance(module, nn.Linear | nn.Conv2d) and not run.options.ignores(name)
        ]

    def apply(self, run: Run, strength: float, only: str | None = None) -> None:
        """Zeroes this share of the weights that are still there."""
        for name in self.layers(run) if only is None else [only]:
            layer: Any = run.model.get_submodule(name)
            if not parametrize.is_parametrized(layer, "weight"):
                parametrize.register_parametrization(layer, "weight", Mask(layer.weight))
            kept = layer.parametrizations["weight"][0].kept
            size = layer.weight.detach().abs().masked_fill(kept == 0, torch.inf)
            smallest = size.flatten().argsort()[: round(strength * int(kept.sum()))]
            kept.view(-1)[smallest] = 0

    def finish(self, run: Run, fit: Fit) -> None:
        """Makes the zeros part of the weights."""
        for name in self.layers(run):
            layer = run.model.get_submodule(name)
            if parametrize.is_parametrized(layer, "weight"):
                parametrize.remove_parametrizations(layer, "weight")
