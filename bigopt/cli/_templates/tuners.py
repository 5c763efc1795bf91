"""A tuner plugin: a function that returns an Optuna sampler and pruner; its typed signature is its configuration."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bigopt import RequestError

if TYPE_CHECKING:
    from optuna.pruners import BasePruner
    from optuna.samplers import BaseSampler


def my_function(seed: int = 0, startup: int = 10, warmup: int = 3) -> tuple[BaseSampler, BasePruner]:
    """TPE (Bergstra et al. 2011), and trials stopped that are below the median of those before.

    Args:
        seed: of the sampler.
        startup: random trials before the first that is chosen.
        warmup: epochs of a trial in which it is never stopped.

    Raises:
        RequestError: an argument is out of range.
    """
    from optuna.pruners import MedianPruner
    from optuna.samplers import TPESampler

    if startup < 1:
        raise RequestError(f"startup: got {startup}, expected at least 1")
    return TPESampler(n_startup_trials=startup, seed=seed), MedianPruner(n_warmup_steps=warmup)
