"""Optuna's samplers, made anew for every trial, so that a resumed study equals an uninterrupted one."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from bigopt.vocabulary.errors import RequestError
from bigopt.vocabulary.tuner import trial_seed

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler


def make_sampler(name: str, seed: int | None, startup: int = 10) -> Callable[[int], BaseSampler]:
    """A sampler by its name, for the trial of each number.

    Args:
        name: ``random``; ``tpe``, the tree-structured Parzen estimator (Bergstra et al. 2011), multivariate and grouped
            by which parameters occur together, so that conditional parameters are modelled as well; ``gp``, a Gaussian
            process with expected improvement (Optuna's GPSampler).
        seed: of the study; None means 0.
        startup: random trials before the first that is chosen by a model.

    Raises:
        RequestError: an unknown name or a value out of range.
    """
    from optuna import samplers

    if startup < 1:
        raise RequestError(f"startup: got {startup}, expected at least 1 trial")
    base = 0 if seed is None else seed
    if name == "random":
        return lambda number: samplers.RandomSampler(seed=trial_seed(base, number))
    if name == "tpe":
        return lambda number: quiet(
            lambda: samplers.TPESampler(
                seed=trial_seed(base, number),
                n_startup_trials=startup,
                multivariate=True,
                group=True,
                constant_liar=True,
                warn_independent_sampling=False,
            )
        )
    if name == "gp":
        return lambda number: quiet(
            lambda: samplers.GPSampler(
                seed=trial_seed(base, number), n_startup_trials=startup, warn_independent_sampling=False
            )
        )
    raise RequestError(f"sampler: got {name!r}, expected one of random, tpe, gp")


def quiet(make: Callable[[], BaseSampler]) -> BaseSampler:
    """Makes a sampler without Optuna's notes on arguments that are still experimental."""
    import warnings

    from optuna.exceptions import ExperimentalWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        return make()
