"""Activations replaced by something that is cheaper in hardware, or friendlier to encryption."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from torch import nn

from bigopt.vocabulary.errors import RequestError
from bigopt.vocabulary.network import Network
from bigopt.vocabulary.part import Fit, Part
from bigopt.vocabulary.patterns import fits
from bigopt.vocabulary.run import Run
from bigopt_plugins.compression._layers import swap
from bigopt_plugins.compression._weights import network, tell_left
from bigopt_plugins.compression.activation._find import activations, functional
from bigopt_plugins.compression.activation._observe import fit_polynomials, fit_staircases, ranges
from bigopt_plugins.compression.activation._polynomial import Polynomial
from bigopt_plugins.compression.activation._staircase import Staircase

Fitted = dict[str, tuple[Polynomial | Staircase, float]]


class Activation(Part):
    """Replaces ReLU, GELU and SiLU by a polynomial or a staircase, which then trains with the network.

    ``form: polynomial`` takes ``p(x) = c₀ + c₁x + c₂x² (+ c₃x³)`` with the coefficients that minimise
    ``Σ (p(x) − f(x))²`` over the inputs x that the activation f sees of training samples; x is clamped to the range
    that was seen, since a polynomial leaves every bound outside of it. Networks whose only non-linearity is a
    polynomial can be computed on encrypted data (CryptoNets, Gilad-Bachrach et al. 2016); on a processor a ReLU is
    faster, and the report's row says by how much.

    ``form: staircase`` takes a ReLU-like staircase with k levels, ``s·round(clip(x/s, 0, k−1))``, whose step starts
    where the squared error against the activation is least. ``rule: lsq`` learns the step (Esser et al. 2020,
    arXiv:1902.08153): ``∂/∂s = −x/s + round(x/s)`` inside the range and 0 or k−1 outside, times
    ``1/√(N·(k−1))`` for N features. ``rule: pact`` learns the clipping ``α = s·(k−1)`` (Choi et al. 2018,
    arXiv:1805.06085) with gradient 1 where x ≥ α, and α decays like a weight. It is exported as QuantizeLinear and
    DequantizeLinear with 8-bit integers.

    Activations that are modules are replaced; a call such as ``F.relu`` inside a forward pass is named and left.

    Args:
        form: ``polynomial`` or ``staircase``.
        order: of the polynomial, 2 or 3.
        per: one polynomial per ``layer``, or per ``channel`` (axis 1 of images, the last axis elsewhere).
        levels: k of the staircase, from 2 to 256.
        rule: how the staircase learns: ``lsq`` or ``pact``.
        where: name patterns of the activations to replace.
        samples: training samples behind the fit.

    Raises:
        RequestError: an argument is out of range, or no activation is there to be replaced.
    """

    space: ClassVar[dict[str, str]] = {"order": "choice(2,3)"}

    def __init__(
        self,
        form: Literal["polynomial", "staircase"] = "polynomial",
        order: int = 2,
        per: Literal["layer", "channel"] = "layer",
        levels: int = 16,
        rule: Literal["lsq", "pact"] = "lsq",
        where: tuple[str, ...] = ("*",),
        samples: int = 512,
    ) -> None:
        problems = []
        for name, value, choices in (
            ("form", form, ("polynomial", "staircase")),
            ("order", order, (2, 3)),
            ("per", per, ("layer", "channel")),
            ("rule", rule, ("lsq", "pact")),
        ):
            if value not in choices:
                problems.append(f"{name}: got {value!r}, expected one of {', '.join(map(str, choices))}")
        if form == "staircase" and per == "channel":
            problems.append("per: got 'channel', but a staircase has one step per layer")
        if not 2 <= levels <= 256:
            problems.append(f"levels: got {levels}, expected 2 to 256")
        if not where:
            problems.append("where: got no pattern, expected at least one")
        if samples < 1:
            problems.append(f"samples: got {samples}, expected at least 1")
        if problems:
            raise RequestError(problems)
        self.form = form
        self.order = order
        self.per = per
        self.levels = levels
        self.rule = rule
        self.where = tuple(where)
        self.samples = samples

    def bits(self) -> tuple[int, int] | None:
        """A staircase's outputs need as many bits as count its levels."""
        return (32, math.ceil(math.log2(self.levels))) if self.form == "staircase" else None

    def prepare(self, run: Run, fit: Fit) -> None:
        """Fits and replaces.

        Raises:
            RequestError: there is nothing to replace, or ``strict`` and an activation cannot be.
        """
        model = network(run, "activation")
        found = activations(model, run.options.ignore)
        chosen = {name: module for name, module in found.items() if fits(name, self.where)}
        seen = ranges(run, chosen, self.samples)
        left = {name: "it never runs" for name in chosen if name not in seen}
        for name, calls in functional(model, run.data.train.take(_first())).items():
            if fits(name, self.where) and not run.options.ignores(name):
                left[name] = f"its forward pass calls {calls} as a function; make it a module to have it replaced"
        tell_left(run, left)
        if not seen:
            known = ", ".join(found) or "none that is a module"
            raise RequestError(f"where: got {list(self.where)}, which fits no activation of the model: {known}")
        if self.per == "channel":
            for name in [name for name, facts in seen.items() if len(facts.shapes) > 1]:
                run.report.note(f"{name} runs on different numbers of channels: one polynomial for all of them")
        modules = {name: chosen[name] for name in seen}
        fitted = self._fit(run, modules, seen)
        self._tell(run, modules, seen, fitted)
        for name, (module, _) in fitted.items():
            entry = describe(name, module)
            model.changes.append(entry)
            swap(model, {modules[name]: module.to(_device(model))})

    def param_groups(self, run: Run, groups: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Coefficients and steps do not decay; PACT's clipping does, like the weights."""
        decay = run.settings.optimizer.weight_decay
        special = {
            id(p): decay if isinstance(module, Staircase) and module.rule == "pact" else 0.0
            for module in run.model.modules()
            if isinstance(module, Polynomial | Staircase)
            for p in module.parameters()
        }
        split = []
        for group in groups:
            split.append({**group, "params": [p for p in group["params"] if id(p) not in special]})
            for value in sorted(set(special.values())):
                own = [p for p in group["params"] if special.get(id(p)) == value]
                split.append({**group, "params": own, "weight_decay": value})
        return split

    @staticmethod
    def replay(model: Network, entry: Mapping[str, Any]) -> None:
        """Replaces one activation as before; its numbers come with the weights."""
        if entry["form"] == "polynomial":
            new: nn.Module = Polynomial(entry["order"], -1.0, 1.0, tuple(entry["shape"]))
        else:
            new = Staircase(entry["levels"], entry["rule"], 1.0)
        swap(model, {model.get_submodule(entry["module"]): new})

    def _fit(self, run: Run, modules: Mapping[str, nn.Module], seen: Any) -> Fitted:
        if self.form == "polynomial":
            fits: Any = fit_polynomials(run, modules, seen, self.order, self.per == "channel", self.samples)
        else:
            fits = fit_staircases(run, modules, seen, self.levels, self.rule, self.samples)
        return {name: (module, rmse) for name, module, rmse in fits}

    def _tell(self, run: Run, modules: Mapping[str, nn.Module], seen: Any, fitted: Fitted) -> None:
        rows = [
            {
                "layer": name,
                "replaces": type(modules[name]).__name__,
                "by": f"order {self.order}" if self.form == "polynomial" else f"{self.levels} levels",
                "low": seen[name].low,
                "high": seen[name].high,
                "rmse": rmse,
            }
            for name, (_, rmse) in fitted.items()
        ]
        run.report.table("activation", rows)
        run.report.value("activation_rmse", {name: rmse for name, (_, rmse) in fitted.items()})


def describe(name: str, module: Polynomial | Staircase) -> dict[str, Any]:
    """The change that puts this module in the place of an activation, as plain JSON."""
    entry: dict[str, Any] = {"op": "activation", "plugin": "activation", "module": name}
    if isinstance(module, Polynomial):
        return entry | {"form": "polynomial", "order": module.order, "shape": list(module.coefficients[0].shape)}
    return entry | {"form": "staircase", "levels": module.levels, "rule": module.rule}


def _first() -> Any:
    import torch

    return torch.arange(2)


def _device(model: nn.Module) -> Any:
    return next(model.parameters()).device
