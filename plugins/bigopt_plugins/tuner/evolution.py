"""CMA-ES."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from bigopt.vocabulary.errors import RequestError
from bigopt.vocabulary.tuner import Tuner, trial_seed
from bigopt_plugins.tuner._pruners import make_pruner, refuse_several
from bigopt_plugins.tuner._samplers import quiet

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler


def evolution(
    population: int | None = None,
    sigma: float | None = None,
    margin: bool = True,
    learn_from_stopped: bool = True,
    pruner: Literal["none", "median", "percentile", "successive_halving"] = "none",
    min_epochs: int = 1,
    eta: int = 3,
    percentile: float = 25.0,
    pruner_startup: int = 5,
    patience: int = 0,
    seed: int | None = None,
    max_resource: int | None = None,
    directions: list[str] | None = None,
) -> Tuner:
    """CMA-ES (Hansen and Ostermeier 2001), for numbers; choices and conditional parameters are drawn at random.

    Args:
        population: configurations of one generation; null means ``4 + ⌊3 ln n⌋`` for n parameters.
        sigma: first standard deviation, as a share of the smallest interval; null means 1/6.
        margin: keep whole numbers and steps from freezing (Hamano et al. 2022).
        learn_from_stopped: take stopped trials at their last value; without, they do not count as a generation's.
        pruner: stops running trials.
        min_epochs: epochs that every trial is given.
        eta: of ``successive_halving``: one in so many goes on.
        percentile: of ``percentile``: the best so many percent go on.
        pruner_startup: trials that end before ``median`` and ``percentile`` stop one.
        patience: epochs without a better value before a trial may be stopped; with pruner ``none`` it is then stopped.
        seed: of the sampler.
        max_resource: epochs of a full training.
        directions: of the objectives.

    Raises:
        RequestError: a value out of range, or several objectives.
    """
    from optuna import samplers

    refuse_several(directions, "tuner: got evolution", "nsga2, bayesian, random, quasi_random or grid")
    problems = []
    if population is not None and population < 2:
        problems.append(f"population: got {population}, expected at least 2")
    if sigma is not None and not sigma > 0:
        problems.append(f"sigma: got {sigma}, expected a positive share")
    if problems:
        raise RequestError(problems)
    base = 0 if seed is None else seed

    def sampler(number: int) -> BaseSampler:
        own = trial_seed(base, number)
        return quiet(
            lambda: samplers.CmaEsSampler(
                seed=own,
                sigma0=sigma,
                popsize=population,
                with_margin=margin,
                consider_pruned_trials=learn_from_stopped and pruner != "none",
                independent_sampler=samplers.RandomSampler(seed=own),
                warn_independent_sampling=False,
            )
        )

    return Tuner(
        sampler,
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
    )
