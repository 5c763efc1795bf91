"""ASHA: successive halving without waiting."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from bigopt.vocabulary.tuner import Assignment, Trial, Tuner
from bigopt_plugins.tuner._pruners import refuse_several
from bigopt_plugins.tuner._rungs import arrived, best, check_ladder, rung_epochs, rungs_below
from bigopt_plugins.tuner._samplers import make_sampler


class AshaSchedule:
    """Who goes on in ASHA (Li et al. 2020, arXiv:1810.05934, algorithm 2).

    A worker that is free promotes the best configuration that is among the top ``1/η`` of its rung and was not
    promoted yet, looking at the highest rungs first; where there is none it starts a new one on the lowest rung.

    Args:
        max_resource: R, epochs of a full training.
        eta: η.
        maximize: whether higher values are better.
        total: configurations in all; None for no end.
        min_epochs: r; the lowest rung is ``R·η⁻ᵏ`` epochs with ``k = ⌊log_η(R / r)⌋``.
    """

    def __init__(
        self, max_resource: int, eta: int = 3, maximize: bool = True, total: int | None = None, min_epochs: int = 1
    ) -> None:
        self.eta = eta
        self.maximize = maximize
        self.total = total
        self.epochs = tuple(rung_epochs(max_resource, eta, rungs_below(max_resource, eta, min_epochs)))

    def next(self, seen: Sequence[Trial]) -> Assignment | None:
        """An interrupted training to go on with, a promotion, or a new configuration, in this order."""
        for one in seen:
            if one.standing == "paused" and not arrived(one, one.until):
                return Assignment(one.id, max(one.values, default=0), one.until)
        for rung in range(len(self.epochs) - 2, -1, -1):
            for number in self._promotable(seen, rung):
                return Assignment(number, max(seen[number].values), self.epochs[rung + 1])
        if self.total is None or len(seen) < self.total:
            return Assignment(len(seen), 0, self.epochs[0])
        return None

    def stopped(self, seen: Sequence[Trial]) -> Sequence[int]:
        """Everything that is paused, once the search is over: before, a later result may lift anyone."""
        if not self.finished(seen):
            return []
        return [one.id for one in seen if one.standing == "paused"]

    def finished(self, seen: Sequence[Trial]) -> bool:
        """Whether all were started, none runs and none can be promoted."""
        return all(one.standing != "running" for one in seen) and self.next(seen) is None

    def _promotable(self, seen: Sequence[Trial], rung: int) -> list[int]:
        """Ids on this rung that are among its best ``⌊n/η⌋`` and were not told to go further, best first."""
        here = [one for one in seen if one.until >= self.epochs[rung] and arrived(one, self.epochs[rung])]
        top = best(here, self.epochs[rung], len(here) // self.eta, self.maximize)
        return [
            number for number in top if seen[number].standing == "paused" and seen[number].until == self.epochs[rung]
        ]


def asha(
    eta: int = 3,
    min_epochs: int = 1,
    sampler: Literal["random", "tpe", "gp"] = "random",
    startup: int = 10,
    seed: int | None = None,
    n_trials: int | None = None,
    max_resource: int | None = None,
    directions: list[str] | None = None,
) -> Tuner:
    """ASHA (Li et al. 2020, arXiv:1810.05934): promotions from checkpoints, without waiting for a rung to fill.

    Args:
        eta: one in so many goes on from rung to rung.
        min_epochs: epochs of the lowest rung.
        sampler: what chooses configurations.
        startup: random trials before ``tpe`` and ``gp`` choose.
        seed: of the sampler.
        n_trials: configurations in all.
        max_resource: epochs of a full training.
        directions: of the objectives; null for one that is maximised.

    Raises:
        RequestError: a value out of range, or several objectives.
    """
    refuse_several(directions, "tuner: got asha", "nsga2, bayesian, random, quasi_random or grid")
    full = check_ladder(max_resource, eta, min_epochs, n_trials)
    maximize = directions is None or directions[0] == "max"
    return Tuner(
        make_sampler(sampler, seed, startup), scheduler=AshaSchedule(full, eta, maximize, n_trials, min_epochs)
    )
