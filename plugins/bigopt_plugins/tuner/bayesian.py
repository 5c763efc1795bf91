"""Bayesian optimisation: TPE, or a Gaussian process."""

from __future__ import annotations

from typing import Literal

from bigopt.vocabulary.tuner import Tuner
from bigopt_plugins.tuner._pruners import make_pruner
from bigopt_plugins.tuner._samplers import make_sampler


def bayesian(
    method: Literal["tpe", "gp"] = "tpe",
    startup: int = 10,
    pruner: Literal["none", "median", "percentile", "successive_halving", "hyperband"] = "none",
    min_epochs: int = 1,
    eta: int = 3,
    percentile: float = 25.0,
    pruner_startup: int = 5,
    patience: int = 0,
    seed: int | None = None,
    max_resource: int | None = None,
    directions: list[str] | None = None,
) -> Tuner:
    """Bayesian optimisation, of one objective or several.

    Args:
        method: ``tpe``, the tree-structured Parzen estimator (Bergstra et al. 2011; several objectives: Ozaki et al.
            2022), which learns from stopped trials too; ``gp``, a Gaussian process with expected (hypervolume)
            improvement, which learns from finished trials only and suits few, costly ones.
        startup: random trials before the model chooses.
        pruner: stops running trials; ``successive_halving`` and ``hyperband`` by rungs, the others by comparing with
            earlier trials at the same epoch.
        min_epochs: epochs that every trial is given.
        eta: of ``successive_halving`` and ``hyperband``: one in so many goes on.
        percentile: of ``percentile``: the best so many percent go on.
        pruner_startup: trials that end before ``median`` and ``percentile`` stop one.
        patience: epochs without a better value before a trial may be stopped; with pruner ``none`` it is then stopped.
        seed: of the sampler.
        max_resource: epochs of a full training.
        directions: of the objectives.

    Raises:
        RequestError: a value out of range, or a pruner with several objectives.
    """
    return Tuner(
        make_sampler(method, seed, startup),
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
