"""Normalisation layers: more, fewer or other ones than the model has."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import nn

from bigopt.train import STAY_EVAL
from bigopt.vocabulary.errors import RequestError
from bigopt.vocabulary.part import Fit, Part
from bigopt.vocabulary.run import Run
from bigopt_plugins.recipe.norm._layers import batch_norms, followers, insert, remove, swap


class Norm(Part):
    """Changes a model's batch normalisation (Ioffe and Szegedy 2015, arXiv:1502.03167) before it is trained.

    Structural changes are repeated when the model is loaded again. ``compression=[reestimate_norm]`` computes running
    statistics anew after compression.

    Args:
        kind: ``keep`` leaves the layers; ``insert`` puts a batch norm behind every convolution and linear layer that
            has no norm, the last layer excepted; ``remove`` takes batch norms away, folded into the layers before them;
            ``group`` (Wu and He 2018, arXiv:1803.08494) and ``layer`` (Ba et al. 2016, arXiv:1607.06450, over channels
            and places) take their place, with their scale and shift.
        groups: of ``group``; where it does not divide the channels, their greatest common divisor.
        momentum: of the running statistics' moving average, in (0, 1]; null keeps each layer's own.
        freeze: keep scale, shift and running statistics as they are, for models that come trained.

    Raises:
        RequestError: an argument is out of range.
    """

    def __init__(
        self,
        kind: Literal["keep", "insert", "remove", "group", "layer"] = "keep",
        groups: int = 8,
        momentum: float | None = None,
        freeze: bool = False,
    ) -> None:
        problems = []
        if kind not in ("keep", "insert", "remove", "group", "layer"):
            problems.append(f"kind: got {kind!r}, expected keep, insert, remove, group or layer")
        if groups < 1:
            problems.append(f"groups: got {groups}, expected at least 1")
        if momentum is not None and not 0 < momentum <= 1:
            problems.append(f"momentum: got {momentum}, expected a share in (0, 1]")
        if problems:
            raise RequestError([f"norm.{problem}" for problem in problems])
        self.kind = kind
        self.groups = groups
        self.momentum = momentum
        self.freeze = freeze

    def prepare(self, run: Run, fit: Fit) -> None:
        """Changes the layers, and says how many."""
        model = run.model
        entry: dict[str, Any] | None = None
        if self.kind in ("insert", "remove"):
            x = run.data.train.take(torch.arange(min(2, len(run.data.train))))
            behind = followers(model, x)
            norms = set(batch_norms(model))
            pairs = [[layer, norm] for layer, norm in behind.items() if norm in norms]
            if self.kind == "remove":
                entry = {"op": "norm", "kind": "recipe", "plugin": "norm", "change": "remove", "layers": pairs}
            else:
                bare = [layer for layer, norm in behind.items() if norm is None][:-1]
                entry = {"op": "norm", "kind": "recipe", "plugin": "norm", "change": "insert", "layers": bare}
        elif self.kind != "keep":
            found = batch_norms(model)
            entry = {"op": "norm", "kind": "recipe", "plugin": "norm", "change": self.kind, "layers": found}
            entry["groups"] = self.groups
        if entry is not None:
            if not entry["layers"]:
                run.report.note(f"norm: nothing to {self.kind}: the model has no layer for it")
            else:
                self.replay(model, entry)
                network: Any = model
                network.changes.append(entry)
                run.report.note(f"norm: {self.kind} changed {len(entry['layers'])} layers")
        self._set(model)

    @staticmethod
    def replay(model: nn.Module, entry: Mapping[str, Any]) -> None:
        """Makes a recorded change again.

        Raises:
            RequestError: the change does not fit this model.
        """
        try:
            for layer in entry["layers"]:
                if entry["change"] == "insert":
                    insert(model, str(layer))
                elif entry["change"] == "remove":
                    remove(model, str(layer[0]), str(layer[1]))
                else:
                    swap(model, str(layer), entry["change"], int(entry["groups"]))
        except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
            raise RequestError(f"norm: the change {dict(entry)} does not fit this model: {error}") from None

    def _set(self, model: nn.Module) -> None:
        for name in batch_norms(model):
            module: Any = model.get_submodule(name)
            if self.momentum is not None:
                module.momentum = self.momentum
            if self.freeze:
                module.requires_grad_(False)
                setattr(module, STAY_EVAL, True)
