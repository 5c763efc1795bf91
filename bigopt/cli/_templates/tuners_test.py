"""The tuner is found by its name, searches, and repeats."""

import optuna
import pytest
from bigopt_my_plugin import my_function

from bigopt import RequestError
from bigopt.registry import build, get


def values(made: tuple[optuna.samplers.BaseSampler, optuna.pruners.BasePruner]) -> list[float]:
    sampler, pruner = made
    study = optuna.create_study(sampler=sampler, pruner=pruner)
    study.optimize(lambda trial: (trial.suggest_float("x", -1, 1) - 0.5) ** 2, n_trials=15)
    return [trial.params["x"] for trial in study.trials]


def test_it_is_found() -> None:
    assert get("tuners", "my_plugin").error is None


def test_a_seeded_search_repeats() -> None:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    first = values(build("tuners", "my_plugin", {"startup": 5, "seed": 3}))
    assert first == values(my_function(seed=3, startup=5))
    assert first != values(my_function(seed=4, startup=5))


def test_wrong_arguments_are_refused() -> None:
    with pytest.raises(RequestError, match="startup: got 0"):
        my_function(startup=0)
