"""What a tuner plugin returns: how the next configuration is chosen, and which ones go on.

Arguments of these names in a plugin's signature are filled from the run unless they are set: ``seed`` (the run's),
``n_trials`` (configurations in total, None where the tuner plans), ``max_resource`` (epochs of a fully trained
configuration) and ``directions`` (``max`` or ``min`` for each objective).
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.pruners import BasePruner
    from optuna.samplers import BaseSampler

Standing = Literal["running", "paused", "done", "failed"]


@dataclass(frozen=True)
class Trial:
    """What the storage holds of one configuration; a retried or continued one is still the same configuration.

    Attributes:
        id: 0, 1, … in the order in which configurations were first started.
        values: the objective after each epoch (1-based) that was reported so far.
        until: epochs that it was last told to train to.
        standing: ``running``; ``paused`` with a checkpoint, may go on (the sampler should see it as pruned with its
            last value, or a model-based one would learn nothing from it); ``done`` for good (finished or stopped);
            ``failed`` for good.
    """

    id: int
    values: Mapping[int, float] = field(default_factory=dict)
    until: int = 0
    standing: Standing = "running"


@dataclass(frozen=True)
class Assignment:
    """Train configuration ``id``, which has had ``start`` epochs, up to ``until`` epochs in total.

    The configuration is new where its ``id`` is the number of those seen.
    """

    id: int
    start: int
    until: int


@runtime_checkable
class Scheduler(Protocol):
    """Decides itself who goes on and for how many epochs.

    A scheduler keeps no state: every answer follows from the configurations that are handed in, in order of their
    ids, so that several processes may ask (one at a time) and a resumed study goes on exactly. Whoever asks marks the
    assignment as running before the next one asks. A configuration that reaches ``until < max_resource`` pauses and
    keeps its checkpoint; one whose worker died is paused as well and goes on from what it has.

    Attributes:
        total: configurations that will be started in all; None while trials in total decide.
    """

    total: int | None

    def next(self, seen: Sequence[Trial]) -> Assignment | None:
        """What to train now; None when there is nothing before a running one reports, or nothing at all."""
        ...

    def stopped(self, seen: Sequence[Trial]) -> Sequence[int]:
        """Ids of paused configurations that will never go on: they are told as pruned, with their last value."""
        ...

    def finished(self, seen: Sequence[Trial]) -> bool:
        """Whether nothing is left to do: nothing runs and nothing would be assigned."""
        ...


@dataclass(frozen=True)
class Tuner:
    """How the next configuration is chosen, and which ones are stopped early.

    At most one of ``pruner`` and ``scheduler``; neither with several objectives.

    Attributes:
        sampler: an Optuna sampler for the trial of this number, always the same one for the same number, so that a
            resumed study equals an uninterrupted one. Lasting state is in the study's trials, as Optuna keeps it.
        pruner: an Optuna pruner; None for none (never omit it with ``create_study``: that would be MedianPruner).
        scheduler: decides who goes on in the pruner's place.
        points: all configurations of a space, in a fixed order, for tuners that enumerate (grid, low-discrepancy
            sequences). They are enqueued as they are, each once, so that no two workers take the same one; the study
            ends after the last. The sampler chooses what a point leaves out.
    """

    sampler: Callable[[int], BaseSampler]
    pruner: BasePruner | None = None
    scheduler: Scheduler | None = None
    points: Callable[[Mapping[str, BaseDistribution]], Iterable[dict[str, Any]]] | None = None

    @property
    def stops_early(self) -> bool:
        """Whether values per epoch are needed."""
        return self.scheduler is not None or self.pruner is not None

    @classmethod
    def of(cls, made: Any, seed: int) -> Tuner | None:
        """What a plugin returned, as a tuner.

        Args:
            made: None, a tuner, a scheduler (random search chooses), an Optuna sampler, or a pair of sampler and
                pruner.
            seed: of the run, for samplers that are handed over ready-made.
        """
        if made is None or isinstance(made, Tuner):
            return made
        if isinstance(made, Scheduler):
            from optuna.samplers import RandomSampler

            return cls(lambda number: RandomSampler(seed=trial_seed(seed, number)), scheduler=made)
        sampler, pruner = made if isinstance(made, tuple | list) else (made, None)
        return cls(lambda number: reseeded(sampler, seed, number), pruner)


def trial_seed(seed: int, number: int) -> int:
    """Seed of the sampler for one trial, in [0, 2³²): repeatable, and unrelated between trials."""
    import numpy

    return int(numpy.random.SeedSequence([seed, number]).generate_state(1)[0])


def reseeded(sampler: BaseSampler, seed: int, number: int) -> BaseSampler:
    """A copy of a ready-made sampler whose generators are seeded for this trial."""
    fresh = copy.deepcopy(sampler)
    for place, state in enumerate(_generators(fresh, set())):
        state.rng.seed((trial_seed(seed, number) + place) % 2**32)
    return fresh


def _generators(owner: Any, seen: set[int]) -> Iterator[Any]:
    """Optuna's lazy generators inside a sampler, and inside the samplers it holds, in order of their attributes."""
    from optuna.samplers import BaseSampler

    if id(owner) in seen:
        return
    seen.add(id(owner))
    for value in vars(owner).values():
        if type(value).__name__ == "LazyRandomState":
            if id(value) not in seen:
                seen.add(id(value))
                yield value
        elif isinstance(value, BaseSampler):
            yield from _generators(value, seen)
