"""Hyperband as published: synchronous brackets of successive halving."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from bigopt.vocabulary.tuner import Assignment, Trial, Tuner
from bigopt_plugins.tuner._pruners import refuse_several
from bigopt_plugins.tuner._rungs import arrived, best, check_ladder, rung_epochs, rungs_below
from bigopt_plugins.tuner._samplers import make_sampler


@dataclass(frozen=True)
class Bracket:
    """One run of successive halving.

    Attributes:
        first: id of its first configuration.
        sizes: configurations on each rung.
        epochs: total epochs after each rung.
    """

    first: int
    sizes: tuple[int, ...]
    epochs: tuple[int, ...]


class HyperbandSchedule:
    """Who goes on in Hyperband (Li et al. 2018, arXiv:1603.06560, algorithm 1).

    With ``s_max = ⌊log_η R⌋``, bracket ``s = s_max, …, 0`` starts ``⌈(s_max+1)/(s+1) · η^s⌉`` configurations at
    ``R·η⁻ˢ`` epochs; of each rung the best ``1/η`` go on from their checkpoints to η times the epochs. While the last
    of a rung still run, further workers begin the next bracket.

    Args:
        max_resource: R, epochs of a full training.
        eta: η.
        maximize: whether higher values are better.
        total: configurations in all; the brackets are begun again where one pass has fewer, and the last one is cut
            off where it has more. None for one pass.
        min_epochs: r, epochs of the lowest rung; ``s_max = ⌊log_η(R / r)⌋``.
    """

    def __init__(
        self, max_resource: int, eta: int = 3, maximize: bool = True, total: int | None = None, min_epochs: int = 1
    ) -> None:
        self.eta = eta
        self.maximize = maximize
        self._plan = list(_brackets(max_resource, eta, rungs_below(max_resource, eta, min_epochs), total))
        last = self._plan[-1]
        self.total: int | None = last.first + last.sizes[0]

    @property
    def brackets(self) -> tuple[Bracket, ...]:
        """All brackets, in order."""
        return tuple(self._plan)

    def next(self, seen: Sequence[Trial]) -> Assignment | None:
        """The first training that is still missing, in order of brackets and rungs; None while others must end."""
        for bracket in self._plan:
            for epochs, cohort in self._rungs(bracket, seen):
                for number in cohort:
                    if number == len(seen):
                        return Assignment(number, 0, epochs)
                    if seen[number].standing == "paused" and not arrived(seen[number], epochs):
                        return Assignment(number, max(seen[number].values, default=0), epochs)
        return None

    def stopped(self, seen: Sequence[Trial]) -> Sequence[int]:
        """Paused configurations that are not among the best of a rung that is complete."""
        out: list[int] = []
        for bracket in self._plan:
            rungs = list(self._rungs(bracket, seen))
            for (epochs, cohort), (_, promoted) in zip(rungs, rungs[1:], strict=False):
                out += [
                    number
                    for number in cohort
                    if number not in promoted and seen[number].standing == "paused" and arrived(seen[number], epochs)
                ]
        return sorted(out)

    def finished(self, seen: Sequence[Trial]) -> bool:
        """Whether every bracket is through."""
        return self.next(seen) is None and all(one.standing != "running" for one in seen)

    def _rungs(self, bracket: Bracket, seen: Sequence[Trial]) -> Iterator[tuple[int, list[int]]]:
        """Epochs and ids of the rungs that can be known by now: the one above follows when one is complete."""
        cohort = list(range(bracket.first, bracket.first + bracket.sizes[0]))
        for place, epochs in enumerate(bracket.epochs):
            known = [number for number in cohort if number <= len(seen)]
            yield epochs, known
            members = [seen[number] for number in known if number < len(seen)]
            if len(members) < len(cohort) or not all(arrived(one, epochs) for one in members):
                return
            if place + 1 < len(bracket.sizes):
                cohort = best(members, epochs, bracket.sizes[place + 1], self.maximize)


def _brackets(max_resource: int, eta: int, s_max: int, total: int | None) -> Iterator[Bracket]:
    first = 0
    while True:
        for s in range(s_max, -1, -1):
            planned = -(-(s_max + 1) * eta**s // (s + 1))
            size = planned if total is None else min(planned, total - first)
            sizes = tuple(max(1, size // eta**rung) for rung in range(s + 1))
            yield Bracket(first, sizes, tuple(rung_epochs(max_resource, eta, s)))
            first += size
            if first == total:
                return
        if total is None:
            return


def hyperband(
    eta: int = 3,
    min_epochs: int = 1,
    sampler: Literal["random", "tpe", "gp"] = "random",
    startup: int = 10,
    seed: int | None = None,
    n_trials: int | None = None,
    max_resource: int | None = None,
    directions: list[str] | None = None,
) -> Tuner:
    """Hyperband (Li et al. 2018, arXiv:1603.06560): rungs wait for all, promoted trials go on from their checkpoint.

    Args:
        eta: one in so many goes on from rung to rung.
        min_epochs: epochs of the lowest rung.
        sampler: what chooses configurations; ``tpe`` gives BOHB's combination (Falkner et al. 2018).
        startup: random trials before ``tpe`` and ``gp`` choose.
        seed: of the sampler.
        n_trials: configurations in all; null for one pass over the brackets.
        max_resource: epochs of a full training.
        directions: of the objectives; null for one that is maximised.

    Raises:
        RequestError: a value out of range, or several objectives.
    """
    refuse_several(directions, "tuner: got hyperband", "nsga2, bayesian, random, quasi_random or grid")
    full = check_ladder(max_resource, eta, min_epochs, n_trials)
    maximize = directions is None or directions[0] == "max"
    return Tuner(
        make_sampler(sampler, seed, startup),
        scheduler=HyperbandSchedule(full, eta, maximize, n_trials, min_epochs),
    )
