"""Random units or whole modules, set to zero or removed."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from bigopt.surgery import ChannelGroup, Groups
from bigopt.train.modes import evaluating
from bigopt.vocabulary.errors import RequestError
from bigopt.vocabulary.network import Network
from bigopt.vocabulary.part import Fit, Part
from bigopt.vocabulary.patterns import fits, unknown
from bigopt.vocabulary.run import Run
from bigopt_plugins.compression._held import KeepZeros, callbacks, hold, release
from bigopt_plugins.compression._weights import network, tell_left
from bigopt_plugins.compression.random_pruning._acting import kept_units, kept_wholes, remove_whole
from bigopt_plugins.compression.random_pruning._leaving import Whole, leave_out
from bigopt_plugins.compression.random_pruning._units import Progress, alive, choose, sort_of, tied_by_norm
from bigopt_plugins.compression.random_pruning._wholes import bypass, find_wholes

TARGETS = ("units", "neurons", "channels", "heads", "modules")
ROWS = 8  # of the example that shows whether a block passes its input on


class RandomPruning(Part):
    """Takes random neurons, channels, attention heads or whole modules away: the control for every criterion.

    Random channels, recovered, are hard to beat (Mittal et al. 2018, arXiv:1801.10447). ``mode=zero`` sets every weight
    into and out of a unit to zero and holds it there while the model recovers; ``mode=remove`` takes the unit out. Both
    draw the same units from the same seed and give the same outputs, so units under a norm over channels (layer norm),
    where a zero counts, are named and left. Only ``remove`` changes size and speed.

    Whole modules are residual blocks that pass their input on when their weights are zero, the deeper side of a sum
    with a projection, and branches of a concatenation (Inception), of which at least one stays.

    Args:
        ratio: share of the units, or of the modules, to take, in [0, 1).
        target: ``neurons`` of linear layers, ``channels`` of convolutions, ``heads`` of attention, ``units`` for all
            three, or whole ``modules``.
        ranking: ``local`` takes the share from every layer (of modules: from every concatenation, and from all
            others together), ``global`` from all together.
        mode: ``zero`` or ``remove``.
        candidates: name patterns: only modules that match can go, for ``target=modules``; empty for all. One that
            matches and only keeps its input's shape, such as a whole Inception module, is passed by, which is
            possible with ``mode=remove`` only.
        min_units: units that a layer keeps at least.
        draw: which of the seed's draws; others take other units of the same trained model.

    Raises:
        RequestError: an argument is out of range.
    """

    strengths: ClassVar[tuple[float, ...]] = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
    space: ClassVar[dict[str, str]] = {"ratio": "interval(0.1,0.8)"}

    def __init__(
        self,
        ratio: float = 0.3,
        target: Literal["units", "neurons", "channels", "heads", "modules"] = "units",
        ranking: Literal["local", "global"] = "local",
        mode: Literal["zero", "remove"] = "remove",
        candidates: tuple[str, ...] = (),
        min_units: int = 1,
        draw: int = 0,
    ) -> None:
        problems = []
        if not 0 <= ratio < 1:
            problems.append(f"ratio: got {ratio}, expected a share in [0, 1)")
        for name, value, choices in (
            ("target", target, TARGETS),
            ("ranking", ranking, ("local", "global")),
            ("mode", mode, ("zero", "remove")),
        ):
            if value not in choices:
                problems.append(f"{name}: got {value!r}, expected one of {', '.join(choices)}")
        if candidates and target != "modules":
            problems.append(f"candidates: got {list(candidates)}, but target is {target}; set target=modules")
        if min_units < 1:
            problems.append(f"min_units: got {min_units}, expected at least 1")
        if draw < 0:
            problems.append(f"draw: got {draw}, expected 0 or more")
        if problems:
            raise RequestError(problems)
        self.ratio = ratio
        self.target = target
        self.ranking = ranking
        self.mode = mode
        self.candidates = tuple(candidates)
        self.min_units = min_units
        self.draw = draw

    def strength(self) -> float:
        """The configured ratio."""
        return self.ratio

    def _seed(self, run: Run) -> int:
        return run.seed + 7_919 * self.draw

    def recovery_lr(self, run: Run) -> float:
        """What is left after half of the units went has far to go: the full learning rate."""
        return 1.0

    def layers(self, run: Run) -> Sequence[str]:
        """Layers whose units can go, or modules that can."""
        model = network(run, "random_pruning")
        if self.target == "modules":
            return [whole.name for whole in self._wholes(run, model)[0]]
        return [group.name for group in self._groups(run, model)[1]]

    def prepare(self, run: Run, fit: Fit) -> None:
        """Refuses candidates that are no modules of the model."""
        names = [name for name, _ in network(run, "random_pruning").named_modules()]
        if problems := unknown("candidates", self.candidates, names):
            raise RequestError(problems)

    def apply(self, run: Run, strength: float, only: str | None = None) -> None:
        """Takes this share of what is left; a single named module goes as soon as there is any strength.

        The model is left as it was if something fails.

        Raises:
            RequestError: the model cannot be traced, or ``strict`` and a layer cannot be handled.
        """
        model = copy.deepcopy(network(run, "random_pruning"))
        rows = (self._take_modules if self.target == "modules" else self._take_units)(run, model, strength, only)
        with evaluating(model), torch.no_grad():
            model(_example(run, 2))
        run.report.table("random_pruning", rows)
        run.model = model

    def callbacks(self, run: Run) -> list[Any]:
        """Holds zeroed units in each fit."""
        return callbacks(run.model)

    def finish(self, run: Run, fit: Fit) -> None:
        """Leaves a plain model, in which later steps keep what is zero."""
        model = network(run, "random_pruning")
        taken, names = Progress.end(model).taken, release(model)
        run.report.value("target", self.target)
        run.report.value("mode", self.mode)
        run.report.value("taken", taken)
        if not taken:
            run.report.note(f"no {self.target} were taken: there are none, or the share is less than one")
        if names:
            run.parts.append(KeepZeros(names))
            run.report.note("zeroed units save no work and hardly any bytes; mode=remove takes them out")

    def _take_units(self, run: Run, model: Network, strength: float, only: str | None) -> list[dict[str, Any]]:
        """Zeroes or removes units; one row per layer."""
        groups, chosen, left = self._groups(run, model)
        tell_left(run, left)
        by_name = {group.name: group for group in chosen if only in (None, group.name)}
        pools = {name: alive(model, group) for name, group in by_name.items()}
        taken = choose(model, pools, strength, self.ranking, dict.fromkeys(pools, self.min_units), self._seed(run))
        if self.mode == "zero":
            hold(model, kept_units(model, groups, taken))
        else:
            for name, units in taken.items():
                groups.remove(by_name[name], units)
        return [
            {"layer": n, "sort": sort_of(model, groups, by_name[n]), "before": len(pools[n]), "taken": u}
            for n, u in taken.items()
        ]

    def _take_modules(self, run: Run, model: Network, strength: float, only: str | None) -> list[dict[str, Any]]:
        """Zeroes or leaves out whole modules; one row each."""
        wholes, left = self._wholes(run, model)
        tell_left(run, left)
        left_over = [w for w in wholes if any(bool(p.any()) for p in model.get_submodule(w.name).parameters())]
        if only is not None:
            taken = [whole for whole in left_over if whole.name == only and strength > 0]
        else:
            taken = self._choose_modules(model, left_over, strength, self._seed(run))
        if self.mode == "zero":
            hold(model, kept_wholes(model, Groups(model, _example(run, 2)), taken))
        else:
            for whole in reversed(taken):  # a list's later members keep their names
                remove_whole(model, whole, _example(run, 2))
        return [{"module": whole.name, "how": whole.how} for whole in taken]

    def _choose_modules(self, model: Network, wholes: Sequence[Whole], strength: float, seed: int) -> list[Whole]:
        pools: dict[str, list[int]] = {}
        for place, whole in enumerate(wholes):
            pools.setdefault(whole.owner if whole.how == "cat" else "", []).append(place)
        least = {pool: int(pool != "") for pool in pools}
        # the last branch of a concatenation is no candidate where the others were zeroed, as where they were removed
        pools = {pool: places for pool, places in pools.items() if len(places) > least[pool]}
        drawn = choose(model, pools, strength, self.ranking, least, seed)
        taken = [wholes[place] for place in sorted(place for places in drawn.values() for place in places)]
        inside = tuple(f"{whole.name}." for whole in taken)
        return [whole for whole in taken if not whole.name.startswith(inside)]

    def _groups(self, run: Run, model: Network) -> tuple[Groups, list[ChannelGroup], dict[str, str]]:
        """The groups whose units can go, and the layers whose units cannot."""
        groups = Groups(model, _example(run, 2), run.options.ignore, run.options.strict)
        left = dict(groups.unhandled)
        chosen = []
        for group in groups:
            if self.target not in ("units", sort_of(model, groups, group)):
                continue
            norm = tied_by_norm(model, group)
            if norm is None:
                chosen.append(group)
            else:
                left[group.name] = f"{norm} takes its mean over the channels, so that zeros are not the same as none"
        return groups, chosen, left

    def _wholes(self, run: Run, model: Network) -> tuple[list[Whole], dict[str, str]]:
        """The modules that can go, and those that were asked for and cannot."""
        example = _example(run, ROWS)
        found = find_wholes(model, example, Groups(model, _example(run, 2)))
        left: dict[str, str] = {}
        if self.candidates:
            found = [w for w in found if fits(w.name, self.candidates)]
            known = {whole.name for whole in found}
            passed = [w for w in bypass(model, example, self.candidates) if w.name not in known]
            if self.mode == "remove":
                order = {name: place for place, (name, _) in enumerate(model.named_modules())}
                found = sorted([*found, *passed], key=lambda whole: order[whole.name])
            else:
                left = {w.name: "with zero weights it cuts the net through; mode=remove passes it by" for w in passed}
        return [whole for whole in found if not run.options.ignores(whole.name)], left

    @staticmethod
    def replay(model: nn.Module, entry: Any) -> None:
        """Leaves a module out again; who reads its channels gets its shapes from the file.

        Raises:
            RequestError: the entry does not fit the model.
        """
        try:
            leave_out(model, Whole.of(entry))
        except (AttributeError, IndexError, ValueError) as error:
            raise RequestError(f"random_pruning: the change {dict(entry)} does not fit this model: {error}") from None


def _example(run: Run, rows: int) -> Tensor:
    return run.data.train.take(torch.arange(min(rows, len(run.data.train))))
