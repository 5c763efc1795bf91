"""What a plugin returned becomes a tuner; samplers are the same for a trial whenever they are asked for."""

from __future__ import annotations

from collections.abc import Sequence

import optuna
import pytest
from optuna.distributions import FloatDistribution

from bigopt.vocabulary.tuner import Assignment, Trial, Tuner, reseeded, trial_seed

optuna.logging.set_verbosity(optuna.logging.ERROR)


class OneEach:
    """One epoch for each of three."""

    total = 3

    def next(self, seen: Sequence[Trial]) -> Assignment | None:
        return Assignment(len(seen), 0, 1) if len(seen) < 3 else None

    def stopped(self, seen: Sequence[Trial]) -> Sequence[int]:
        return []

    def finished(self, seen: Sequence[Trial]) -> bool:
        return len(seen) == 3


def drawn(tuner: Tuner, trials: int) -> list[float]:
    study = optuna.create_study(pruner=optuna.pruners.NopPruner())
    for number in range(trials):
        study.sampler = tuner.sampler(number)
        trial = study.ask({"x": FloatDistribution(0, 1)})
        study.tell(trial, abs(trial.params["x"] - 0.3))
    return [trial.params["x"] for trial in study.trials]


def test_everything_that_a_plugin_may_return_becomes_a_tuner() -> None:
    sampler, pruner = optuna.samplers.RandomSampler(seed=1), optuna.pruners.MedianPruner()
    assert Tuner.of(None, 0) is None
    own = Tuner(lambda number: sampler)
    assert Tuner.of(own, 0) is own and not own.stops_early
    alone, pair, none = Tuner.of(sampler, 0), Tuner.of((sampler, pruner), 0), Tuner.of([sampler, None], 0)
    assert alone is not None and alone.pruner is None
    assert pair is not None and pair.pruner is pruner and pair.stops_early
    assert none is not None and none.pruner is None
    scheduler = OneEach()
    scheduled = Tuner.of(scheduler, 0)
    assert scheduled is not None and scheduled.scheduler is scheduler and scheduled.stops_early


@pytest.mark.parametrize(
    "sampler",
    [optuna.samplers.RandomSampler(), optuna.samplers.TPESampler(n_startup_trials=3)],
    ids=["random", "tpe"],
)
def test_a_ready_made_sampler_repeats_by_trial_number(sampler: optuna.samplers.BaseSampler) -> None:
    first, again, other = (Tuner.of(sampler, seed) for seed in (4, 4, 5))
    assert first is not None and again is not None and other is not None
    points = drawn(first, 6)
    assert points == drawn(again, 6) != drawn(other, 6)
    assert len(set(points)) == 6


def test_all_generators_of_a_sampler_are_seeded() -> None:
    tpe = reseeded(optuna.samplers.TPESampler(), 1, 2)
    same = reseeded(optuna.samplers.TPESampler(), 1, 2)
    assert tpe._rng.rng.rand() == same._rng.rng.rand()  # type: ignore[attr-defined]
    assert tpe._random_sampler._rng.rng.rand() == same._random_sampler._rng.rng.rand()  # type: ignore[attr-defined]


def test_trial_seeds_differ_and_repeat() -> None:
    seeds = {trial_seed(seed, number) for seed in range(20) for number in range(50)}
    assert len(seeds) == 1000 and all(0 <= seed < 2**32 for seed in seeds)
    assert trial_seed(3, 4) == trial_seed(3, 4)
