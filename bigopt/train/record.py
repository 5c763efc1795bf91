"""What a fit has seen so far: its epochs, the best of them with its weights, and how long ago that was."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from bigopt.vocabulary.objective import Monitor

State = dict[str, Any]


def snapshot(module: nn.Module) -> State:
    """A copy of a module's state on the CPU; later changes of the module do not reach it."""
    return {name: _copy(value) for name, value in module.state_dict().items()}


def _copy(value: Any) -> Any:
    return value.detach().to("cpu", copy=True).contiguous() if isinstance(value, Tensor) else value


@dataclass
class Record:
    """Epochs and the best of them.

    Attributes:
        epochs: one mapping per finished epoch.
        best_epoch: 1-based; 0 before the first.
        best_value: its monitored value, None while no epoch had a number.
        best: its weights: ``model`` and ``modules``.
        stale: epochs since the best one.
        seconds: spent in earlier processes.
        notes: for the history.
    """

    epochs: list[dict[str, float]] = field(default_factory=list)
    best_epoch: int = 0
    best_value: float | None = None
    best: dict[str, Any] = field(default_factory=dict)
    stale: int = 0
    seconds: float = 0.0
    notes: list[str] = field(default_factory=list)

    def improves(self, monitor: Monitor, value: float) -> bool:
        """Takes one epoch's monitored value; whether its weights are to be kept.

        While no epoch had a number, the newest weights are kept.
        """
        epoch = len(self.epochs)
        first = self.best_value is None
        if first or (self.best_value is not None and monitor.better(value, self.best_value)):
            self.best_epoch = epoch
            self.best_value = None if math.isnan(value) else value
            self.stale = 0
            return True
        self.stale += 1
        return False

    def keep(self, model: nn.Module, modules: dict[str, nn.Module]) -> None:
        """Copies the best weights."""
        self.best = {"model": snapshot(model), "modules": {name: snapshot(m) for name, m in modules.items()}}

    def restore(self, model: nn.Module, modules: dict[str, nn.Module]) -> None:
        """Puts the best weights back."""
        restore(self.best, model, modules)


@torch.no_grad()
def restore(state: dict[str, Any], model: nn.Module, modules: dict[str, nn.Module]) -> None:
    """Loads weights of a model and its auxiliary modules; every name and shape must agree."""
    model.load_state_dict(state["model"])
    for name, module in modules.items():
        module.load_state_dict(state["modules"][name])
