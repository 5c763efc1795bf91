"""Low-discrepancy sequences: random search that leaves no gaps."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Literal

from bigopt.vocabulary.errors import RequestError
from bigopt.vocabulary.tuner import Tuner
from bigopt_plugins.tuner._points import quantile
from bigopt_plugins.tuner._pruners import make_pruner
from bigopt_plugins.tuner._samplers import make_sampler

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution


def quasi_random(
    sequence: Literal["sobol", "halton"] = "sobol",
    scramble: bool = True,
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
    """Quasi-random search (Bousquet et al. 2017, arXiv:1706.03200), choices included.

    The points are numbered by the sequence and not by how many trials the storage holds at the moment, so that workers
    never draw the same one and more trials later go on where the sequence was.

    Args:
        sequence: Sobol (best in powers of two) or Halton.
        scramble: randomise the sequence by the seed, keeping its evenness (Owen 1998).
        pruner: stops running trials; ``successive_halving`` and ``hyperband`` by rungs, the others by comparing with
            earlier trials at the same epoch.
        min_epochs: epochs that every trial is given.
        eta: of ``successive_halving`` and ``hyperband``: one in so many goes on.
        percentile: of ``percentile``: the best so many percent go on.
        pruner_startup: trials that end before ``median`` and ``percentile`` stop one.
        patience: epochs without a better value before a trial may be stopped; with pruner ``none`` it is then stopped.
        seed: of the scrambling.
        n_trials: how many points.
        max_resource: epochs of a full training.
        directions: of the objectives.

    Raises:
        RequestError: a value out of range, or a pruner with several objectives.
    """
    base = 0 if seed is None else seed

    def enumerate_all(space: Mapping[str, BaseDistribution]) -> Iterator[dict[str, Any]]:
        if n_trials is None:
            raise RequestError("n_trials: missing, expected how many points of the sequence to try")
        from scipy.stats import qmc

        names = sorted(space)
        engine = (qmc.Sobol if sequence == "sobol" else qmc.Halton)(max(1, len(names)), scramble=scramble, seed=base)
        for _ in range(n_trials):
            shares = engine.random(1)[0]
            yield {name: quantile(space[name], float(share)) for name, share in zip(names, shares, strict=False)}

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
