"""Linear layers and convolutions as pairs of smaller ones."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from bigopt.surgery import Groups, last_layer
from bigopt.vocabulary.errors import RequestError
from bigopt.vocabulary.network import Network
from bigopt.vocabulary.part import Fit, Part
from bigopt.vocabulary.run import Run
from bigopt_plugins.compression._factors import (
    Pair,
    factors,
    kept_energy,
    matrix_of,
    parent,
    rank_of,
    size_of,
    swap,
)
from bigopt_plugins.compression._weights import network, tell_left

DECOMPOSED = (nn.Linear, nn.Conv2d)
"""Exact types: a subclass may use its weight in another way."""


class LowRank(Part):
    """Replaces a weight matrix by the product of two thin ones, where that saves parameters.

    A linear layer ``W (out, in)`` becomes ``W ≈ B·A`` with ``B = U_r·√S_r`` and ``A = √S_r·V_rᵀ`` of its singular value
    decomposition ``W = U·S·Vᵀ``, the best approximation of rank r (Eckart and Young 1936). A convolution
    ``(out, in, k, k)`` is decomposed as the matrix ``(out, in·k·k)``, which gives a k×k convolution to r channels and a
    1×1 convolution to the output channels (Denton et al. 2014, arXiv:1404.0736; Zhang et al. 2016, arXiv:1505.06798).
    Parameters and MACs go from ``out·in·k²`` to ``r·(in·k² + out)``, so that r must be under
    ``out·in·k² / (in·k² + out)``; other layers, and the one that computes the logits, stay. Rounds decompose the
    product again. A pair is one more call of a kernel: small layers get smaller, not faster.

    Args:
        rank_by: ``ratio`` takes the same share of parameters from every layer, ``energy`` keeps in every layer the
            fewest singular values with this share of ``Σ σ²``, so that layers that are nearly of low rank lose most.
        ratio: share of a layer's parameters to save, in [0, 1), for ``rank_by=ratio``.
        energy: share of ``Σ σ²`` to keep, in (0, 1], for ``rank_by=energy``.
        attention: decompose query, key and value projections as well. Heads cannot be told from channels afterwards,
            so a step that removes units has to come before.

    Raises:
        RequestError: an argument is out of range.
    """

    strengths: ClassVar[tuple[float, ...]] = (0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
    space: ClassVar[dict[str, str]] = {"ratio": "interval(0.1,0.8)"}

    def __init__(
        self,
        rank_by: Literal["ratio", "energy"] = "ratio",
        ratio: float = 0.5,
        energy: float = 0.95,
        attention: bool = False,
    ) -> None:
        problems = []
        if rank_by not in ("ratio", "energy"):
            problems.append(f"rank_by: got {rank_by!r}, expected ratio or energy")
        if not 0 <= ratio < 1:
            problems.append(f"ratio: got {ratio}, expected a share in [0, 1)")
        if not 0 < energy <= 1:
            problems.append(f"energy: got {energy}, expected a share in (0, 1]")
        if problems:
            raise RequestError(problems)
        self.rank_by = rank_by
        self.ratio = ratio
        self.energy = energy
        self.attention = attention

    def strength(self) -> float:
        """The share of parameters, or of energy, to take away."""
        return self.ratio if self.rank_by == "ratio" else 1 - self.energy

    def layers(self, run: Run) -> Sequence[str]:
        """Layers that can be decomposed, and those that are already."""
        return self._layers(run, network(run, "low_rank"), _example(run))[0]

    def apply(self, run: Run, strength: float, only: str | None = None) -> None:
        """Saves this share of the parameters (or of the energy) that is left.

        Raises:
            RequestError: ``strict`` and a layer cannot be handled.
        """
        model = network(run, "low_rank")
        example = _example(run)
        names, left = self._layers(run, model, example)
        rows = []
        for name in names if only is None else [only]:
            layer = model.get_submodule(name)
            values = torch.linalg.svdvals(matrix_of(layer).double())
            rank = rank_of(layer, values, strength, self.rank_by)
            if rank is not None:
                reason = swap(model, name, factors(layer, rank), example)
                if reason is not None:
                    left[name], rank = reason, None
                else:
                    model.changes.append({"op": "factorize", "plugin": "low_rank", "layer": name, "rank": rank})
            rows.append(_row(name, layer, model.get_submodule(name), values))
        tell_left(run, left)
        run.report.table("low_rank", rows)

    def finish(self, run: Run, fit: Fit) -> None:
        """Says which layers have which rank."""
        ranks = {name: module.rank for name, module in run.model.named_modules() if isinstance(module, Pair)}
        run.report.value("ranks", ranks)
        if not ranks:
            run.report.note("no layer was decomposed: none would save parameters")

    @staticmethod
    def replay(model: nn.Module, entry: Mapping[str, Any]) -> None:
        """Makes a pair again, of the recorded rank; its weights are loaded afterwards.

        Raises:
            RequestError: the entry does not fit the model.
        """
        try:
            layer = model.get_submodule(str(entry["layer"]))
            rank = int(entry["rank"])
            fits = isinstance(layer, Pair | nn.Linear | nn.Conv2d) and 1 <= rank <= min(matrix_of(layer).shape)
        except (AttributeError, KeyError, TypeError, ValueError):
            fits = False
        if not fits:
            raise RequestError(f"low_rank: the change {dict(entry)} does not fit this model")
        model.set_submodule(str(entry["layer"]), Pair.like(layer, rank))

    def _layers(self, run: Run, model: Network, example: Tensor) -> tuple[list[str], dict[str, str]]:
        """Names of what can be decomposed (pairs again), and of what cannot, with the reason."""
        logits = _logits(model, example)
        projections = () if self.attention else _projections(model, example)
        uses = Counter(id(module) for _, module in model.named_modules(remove_duplicate=False))
        owners = Counter(id(p) for module in model.modules() for p in module.parameters(recurse=False))
        names: list[str] = []
        left: dict[str, str] = {}
        for name, module in model.named_modules():
            if isinstance(parent(model, name), Pair) or name == logits or run.options.ignores(name):
                continue
            if isinstance(module, Pair):
                names.append(name)
            elif isinstance(module, (*DECOMPOSED, nn.modules.conv._ConvNd)):
                reason = _hindrance(module, uses[id(module)] > 1 or owners[id(module.weight)] > 1)
                if name in projections:
                    reason = "heads could not be removed any more; attention=true decomposes it"
                if reason is None:
                    names.append(name)
                else:
                    left[name] = reason
        return names, left


def _projections(model: Network, example: Tensor) -> tuple[str, ...]:
    """Query, key and value projections; none in a model from which nothing can be removed anyway."""
    try:
        return tuple(name for block in Groups(model, example).attention for name in block.projections)
    except RequestError:
        return ()


def _hindrance(module: Any, shared: bool) -> str | None:
    if type(module) not in DECOMPOSED:
        return f"a {type(module).__name__} is not decomposed"
    if shared:
        return "it or its weight is used in two places"
    if getattr(module, "groups", 1) > 1:
        return f"it is a grouped convolution with {module.groups} groups"
    return None


def _logits(model: nn.Module, example: Tensor) -> str:
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        return last_layer(model, example)
    finally:
        for module, training in modes:
            module.training = training


def _row(name: str, before: nn.Module, after: nn.Module, values: Tensor) -> dict[str, Any]:
    rank = after.rank if isinstance(after, Pair) else len(values)
    energy, error = kept_energy(values, rank)
    return {
        "layer": name,
        "decomposed": isinstance(after, Pair),
        "full_rank": len(values),
        "rank": rank,
        "energy": energy,
        "relative_error": error,
        "weights_before": size_of(before),
        "weights": size_of(after),
    }


def _example(run: Run) -> Tensor:
    return run.data.train.take(torch.arange(min(2, len(run.data.train))))
