"""Grid search."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Literal

from bigopt.vocabulary.errors import RequestError
from bigopt.vocabulary.tuner import Tuner
from bigopt_plugins.tuner._points import levels
from bigopt_plugins.tuner._pruners import make_pruner
from bigopt_plugins.tuner._samplers import make_sampler

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

MOST = 100_000


def grid(
    points: int = 5,
    pruner: Literal["none", "median", "percentile", "successive_halving", "hyperband"] = "none",
    min_epochs: int = 1,
    eta: int = 3,
    percentile: float = 25.0,
    pruner_startup: int = 5,
    patience: int = 0,
    seed: int | None = None,
    n_trials: int | None = None,
    max_resource: int | None = None,
    directions: list[str] | None = None,
) -> Tuner:
    """Every combination once, in a fixed order: the last parameter changes fastest.

    Args:
        points: values taken of an interval without a step (its ends among them), evenly spaced, in the logarithm where
            it is logarithmic.
        pruner: stops running trials; ``successive_halving`` and ``hyperband`` by rungs, the others by comparing with
            earlier trials at the same epoch.
        min_epochs: epochs that every trial is given.
        eta: of ``successive_halving`` and ``hyperband``: one in so many goes on.
        percentile: of ``percentile``: the best so many percent go on.
        pruner_startup: trials that end before ``median`` and ``percentile`` stop one.
        patience: epochs without a better value before a trial may be stopped; with pruner ``none`` it is then stopped.
        seed: of what a point leaves open.
        n_trials: how many of the points, from the first; null for all.
        max_resource: epochs of a full training.
        directions: of the objectives.

    Raises:
        RequestError: a value out of range, or a pruner with several objectives.
    """
    if points < 1:
        raise RequestError(f"points: got {points}, expected at least 1")

    def enumerate_all(space: Mapping[str, BaseDistribution]) -> Iterator[dict[str, Any]]:
        values = [levels(distribution, points) for distribution in space.values()]
        size = math.prod(len(each) for each in values)
        if n_trials is None and size > MOST:
            raise RequestError(
                f"points: the grid has {size:,} combinations, expected at most {MOST:,}, or n_trials set"
            )
        combinations = itertools.product(*values)
        return (dict(zip(space, one, strict=True)) for one in itertools.islice(combinations, n_trials))

    return Tuner(
        make_sampler("random", seed),
        make_pruner(
            pruner,
            max_resource=max_resource,
            directions=directions,
            min_epochs=min_epochs,
            eta=eta,
            percentile=percentile,
            startup=pruner_startup,
            patience=patience,
        ),
        points=enumerate_all,
    )
