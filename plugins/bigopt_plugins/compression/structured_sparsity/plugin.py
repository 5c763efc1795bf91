"""Structured sparsity: group lasso and prior knowledge, then removal."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar, Literal

from torch import Tensor, nn

from bigopt.vocabulary.batch import Batch, Output
from bigopt.vocabulary.errors import RequestError
from bigopt.vocabulary.network import Network
from bigopt.vocabulary.objective import Monitor
from bigopt.vocabulary.part import Fit, Part
from bigopt.vocabulary.run import Run
from bigopt_plugins.compression._held import KeepZeros, callbacks, release
from bigopt_plugins.compression._weights import network, tell_left
from bigopt_plugins.compression.structured_sparsity._branches import Branch
from bigopt_plugins.compression.structured_sparsity._kernels import crop
from bigopt_plugins.compression.structured_sparsity._penalty import Family, magnitudes, penalty
from bigopt_plugins.compression.structured_sparsity._removal import Choice, take_away, vanished, weakest
from bigopt_plugins.compression.structured_sparsity._rules import Rule, unused
from bigopt_plugins.compression.structured_sparsity._view import View

KINDS = ("filters", "channels", "shapes", "depth")


class StructuredSparsity(Part):
    """Trains with a group lasso over filters, channels, kernel shapes and depth, then removes what vanished.

    Structured sparsity learning (Wen et al. 2016, arXiv:1608.03665): ``E(w) = E_D(w) + Σ_f λ_f Σ_g √|g| ‖w_g‖₂``, where
    the groups are filters ``W[n,:,:,:]`` (all layers that a residual ties together as one, biases included), channels
    ``W[:,c,:,:]`` of all readers, kernel positions ``W[:,c,i,j]``, and the layers of whole residual branches. ``w`` are
    the weights with the batch norm behind folded in, ``W·γ/√(σ² + ε)``: in front of a batch norm, the size of ``W``
    means nothing. ``√|g|`` (Yuan and Lin 2006) makes groups of all sizes comparable.

    Adam's subgradients rarely reach zero, so after each optimizer step with rate η comes the proximal step
    ``w_g ← w_g · max(0, 1 - ηλ_f√|g| / ‖w_g‖₂)``, one layer and kind of group after the other. What λ means depends on
    the optimizer, the rate and the number of steps, so ``penalty`` p says instead how much is taken off in all:
    ``λ_f = p/k · min(r_f / Σ_t η_t, 1)`` with ``r_f`` the mean root mean square of the layer's groups and k the number
    of kinds. At p = 1 an average group that the loss does not hold up is just gone at the end of the training, unless
    that is so short that optimizer steps of size η could not hold it up at all.

    Units whose norm vanished are removed, branches are left out where a shortcut goes around them, kernels lose outer
    rings where the padding can shrink with them; other vanished positions stay as zeros. The recovery comes after.

    Args:
        penalty: p; 0 trains without a penalty (``rules`` and ``ratio`` still act).
        groups: kinds of groups that are penalised.
        epochs: epochs with the penalty, before the recovery; null means half of the first stage's, 0 none.
        lr: peak learning rate of these epochs as a share of ``optimizer.lr``.
        solver: ``proximal``, or ``subgradient`` as in the paper (the penalty is a term of the loss).
        most: share of a layer's groups that the proximal step may take; once that many are at zero, it leaves the
            others alone, so that no layer is cut through.
        reweighted: multiply each group's threshold by ``r_f / 2r_g``, ``r_g`` its present root mean square, so that
            weak groups go sooner and strong ones are hardly shrunk (Candès, Wakin and Boyd 2008: the penalty is then
            a sum of logarithms). False is the plain group lasso.
        least: groups vanished whose weights have a root mean square up to this.
        ratio: share of every layer's groups that goes, the weakest ones; null removes what vanished. With
            ``max_drop`` the share is searched, so set it.
        rules: prior knowledge, such as ``{match: "net.stem*", action: keep}``, ``{match: "*.body", action: remove}``,
            ``{match: net.conv1, action: remove, units: [0, 3]}``, ``{match: net.fc1, action: ratio, ratio: 0.8}`` and
            ``{match: "*.branch[35].0.conv", action: together}``; names are those of the layers.

    Raises:
        RequestError: an argument is out of range.
    """

    strengths: ClassVar[tuple[float, ...]] = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
    space: ClassVar[dict[str, str]] = {"penalty": "tag(log,interval(0.1,5))"}

    def __init__(
        self,
        penalty: float = 1.0,
        groups: tuple[Literal["filters", "channels", "shapes", "depth"], ...] = ("filters",),
        epochs: int | None = None,
        lr: float = 1.0,
        solver: Literal["proximal", "subgradient"] = "proximal",
        most: float = 0.9,
        reweighted: bool = True,
        least: float = 1e-4,
        ratio: float | None = None,
        rules: tuple[Rule, ...] = (),
    ) -> None:
        problems = [line for i, rule in enumerate(rules) for line in rule.problems(f"rules[{i}]")]
        for name, value in (("penalty", penalty), ("epochs", epochs or 0), ("least", least)):
            if not value >= 0:
                problems.append(f"{name}: got {value}, expected 0 or more")
        if not 0 < most <= 1:
            problems.append(f"most: got {most}, expected a share in (0, 1]")
        if not lr > 0:
            problems.append(f"lr: got {lr}, expected a value above 0")
        if ratio is not None and not 0 <= ratio < 1:
            problems.append(f"ratio: got {ratio}, expected a share in [0, 1)")
        if not groups or set(groups) - set(KINDS):
            problems.append(f"groups: got {list(groups)}, expected some of {', '.join(KINDS)}")
        if solver not in ("proximal", "subgradient"):
            problems.append(f"solver: got {solver!r}, expected proximal or subgradient")
        if problems:
            raise RequestError(problems)
        self.penalty = penalty
        self.groups = tuple(groups)
        self._epochs = epochs
        self.lr = lr
        self.solver = solver
        self.most = most
        self.reweighted = reweighted
        self.least = least
        self.ratio = ratio
        self.rules = tuple(rules)
        self._training: list[Family] | None = None
        self._weights: list[float] = []
        self._means: list[float] = []
        self._before: dict[str, int] = {}

    def strength(self) -> float | None:
        """The configured ratio."""
        return self.ratio

    def extra_epochs(self, run: Run) -> int:
        """Epochs with the penalty."""
        if self.penalty == 0:
            return 0
        return self._epochs if self._epochs is not None else max(1, round(run.settings.trainer.max_epochs / 2))

    def recovery_lr(self, run: Run) -> float:
        """The full rate: what is left after units were removed has to find new values."""
        return 1.0

    def layers(self, run: Run) -> Sequence[str]:
        """Root layers of the units, convolutions whose shapes are penalised, and branches."""
        view = self._view(run, network(run, "structured_sparsity"))
        units = (
            [u.name for bundle in view.bundles for u in bundle] if {"filters", "channels"} & set(self.groups) else []
        )
        branches = [branch.name for branch in view.branches] if "depth" in self.groups else []
        return list(dict.fromkeys([*units, *view.kernels, *branches]))

    def prepare(self, run: Run, fit: Fit) -> None:
        """Takes out what the rules name, trains with the penalty, and removes what vanished (without a ratio).

        Raises:
            RequestError: a rule matches nothing or cannot be followed, or ``strict`` and a layer cannot be handled.
        """
        model = copy.deepcopy(network(run, "structured_sparsity")).eval()
        view = self._view(run, model)
        tell_left(run, view.left)
        self._before = {u.name: u.count for bundle in view.bundles for u in bundle}
        self._obey(run, model, view)
        run.model = model
        epochs = self.extra_epochs(run)
        if epochs:
            self._train(run, fit, model, epochs)
        view = self._view(run, model)
        kinds = self.groups if self.ratio is None else ()
        choice = vanished(view, model, kinds, self.rules, self.least)
        if epochs and self.ratio is None and choice.empty():
            run.report.note(
                f"nothing vanished in {epochs} epochs under penalty {self.penalty:g}; "
                "raise epochs or penalty, or set ratio"
            )
        take_away(run, model, view, choice, self.groups, self.rules)

    def apply(self, run: Run, strength: float, only: str | None = None) -> None:
        """Removes this share of every layer's groups, those with the smallest norm; ``only`` a branch removes it."""
        model = copy.deepcopy(network(run, "structured_sparsity")).eval()
        view = self._view(run, model)
        choice = weakest(view, model, self.groups, self.rules, strength, only)
        take_away(run, model, view, choice, self.groups, self.rules)
        run.model = model

    def loss(self, run: Run, batch: Batch, output: Output) -> dict[str, Tensor]:
        """``Σ_f λ_f Σ_g √|g| ‖w_g‖₂`` with the subgradient solver; nothing where the proximal step does its work."""
        if self._training is None or self.solver == "proximal":
            return {}
        return {"group_lasso": penalty(self._training, self._weights)}

    def callbacks(self, run: Run) -> list[Any]:
        """The proximal step while the penalty acts; afterwards what holds vanished positions at zero."""
        if self._training is None:
            return callbacks(run.model)
        from bigopt_plugins.compression.structured_sparsity._callback import Proximal

        if self.solver == "subgradient":
            return [*callbacks(run.model), Proximal(self._training, None, self.most)]
        references = self._means if self.reweighted else None
        return [*callbacks(run.model), Proximal(self._training, self._weights, self.most, references)]

    def finish(self, run: Run, fit: Fit) -> None:
        """Leaves a plain model and tells what is left of every layer."""
        model = network(run, "structured_sparsity")
        names = release(model)
        if names:
            run.parts.append(KeepZeros(names))
        view = self._view(run, model)
        left = {u.name: u.count for bundle in view.bundles for u in bundle}
        rows = [{"layer": name, "units": count, "left": left.get(name, 0)} for name, count in self._before.items()]
        run.report.table("structured_sparsity", rows)
        run.report.value("removed_branches", [e["modules"][0] for e in model.changes if e["op"] == "remove_branch"])
        run.report.value("cropped_kernels", [e["layer"] for e in model.changes if e["op"] == "crop_kernel"])

    @staticmethod
    def replay(model: nn.Module, entry: Mapping[str, Any]) -> None:
        """Repeats the removal of a branch or the cropping of a kernel."""
        if entry["op"] == "remove_branch":
            Branch(entry["modules"][0], tuple(entry["modules"]), tuple(entry["extra"])).remove(model)
        elif entry["op"] == "crop_kernel":
            layer = model.get_submodule(entry["layer"])
            if not isinstance(layer, nn.Conv2d):
                raise RequestError(f"structured_sparsity cannot crop {entry['layer']}, which is no convolution")
            crop(layer, (int(entry["rings"][0]), int(entry["rings"][1])))
        else:
            raise RequestError(f"structured_sparsity cannot repeat the change {entry['op']!r}")

    def _view(self, run: Run, model: Network) -> View:
        return View.of(run, model, self.groups, self.rules)

    def _train(self, run: Run, fit: Fit, model: Network, epochs: int) -> None:
        """One fit with the penalty, left at its last epoch; averaged weights would have no zeros."""
        from bigopt_plugins.compression._rates import total_rate
        from bigopt_plugins.compression.structured_sparsity._callback import LAST

        settings = replace(run.settings, trainer=replace(run.settings.trainer, ema=None))
        penalised = replace(run, monitor=Monitor(LAST, "max"), settings=settings)
        lr = self.lr * run.settings.optimizer.rate
        self._training = self._view(run, model).families(self.groups, model)
        travel, kinds = total_rate(run, epochs, lr), len(self.groups)
        self._means = [float(magnitudes(family).mean()) for family in self._training]
        self._weights = [self.penalty / kinds * min(mean / travel, 1.0) for mean in self._means]
        try:
            fit(penalised, epochs, lr=lr, name="structured_sparsity", parts=[*run.parts, self])
        finally:
            self._training = None

    def _obey(self, run: Run, model: Network, view: View) -> None:
        """Takes out the branches and units that rules name."""
        names = [*view.everything, *(branch.name for branch in view.branches)]
        problems = unused(self.rules, names)
        choice = Choice()
        for i, rule in enumerate(self.rules):
            if rule.action != "remove":
                continue
            if not rule.units:
                hit = [branch for branch in view.branches if rule.hits([branch.name])]
                choice.branches += [branch for branch in hit if branch not in choice.branches]
                if not hit and rule.hits(names):
                    known = ", ".join(branch.name for branch in view.branches) or "none"
                    problems.append(
                        f"rules[{i}]: {rule.match!r} is no branch that a shortcut goes around; branches: {known}"
                    )
                continue
            problems += _mark(choice, view, rule, i)
        if problems:
            raise RequestError(problems)
        if choice.branches or choice.units:
            take_away(run, model, view, choice, self.groups, self.rules)


def _mark(choice: Choice, view: View, rule: Rule, number: int) -> list[str]:
    """Marks the units of a rule as dead; what is wrong with them."""
    import torch

    from bigopt_plugins.compression.structured_sparsity._rules import names_of

    for units in (units for bundle in view.bundles for units in bundle):
        if not rule.hits(names_of(units)):
            continue
        if max(rule.units) >= units.count or len(set(rule.units)) >= units.count:
            return [f"rules[{number}].units: got {list(rule.units)}, but {units.name} has {units.count} units"]
        dead = torch.zeros(units.count, dtype=torch.bool)
        dead[list(rule.units)] = True
        choice.units.append((units, dead))
    return []
