"""The samplers draw what Optuna draws, and the same for a trial whenever it is asked."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import optuna
import pytest
from optuna import samplers
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.pruners import HyperbandPruner, MedianPruner, PatientPruner, PercentilePruner, SuccessiveHalvingPruner

from bigopt import RequestError, Tuner
from bigopt.registry import build
from bigopt.vocabulary.tuner import trial_seed

optuna.logging.set_verbosity(optuna.logging.ERROR)
pytestmark = pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")

SPACE: dict[str, Any] = {
    "lr": FloatDistribution(1e-4, 1e-1, log=True),
    "width": IntDistribution(1, 3),
    "drop": FloatDistribution(0.0, 0.5, step=0.25),
}


def objective(params: dict[str, Any]) -> float:
    return -((params["lr"] - 0.01) ** 2) - 0.1 * abs(params["width"] - 2) - params["drop"]


def search(sampler: Callable[[int], Any], trials: int, several: bool = False, study: Any = None) -> Any:
    """Asks and tells one after the other, with the sampler of each number, as a sweep does."""
    if study is None:
        study = optuna.create_study(
            directions=["maximize", "minimize"] if several else ["maximize"], pruner=optuna.pruners.NopPruner()
        )
    while len(study.trials) < trials:
        study.sampler = sampler(len(study.trials))
        trial = study.ask(SPACE)
        value = objective(trial.params)
        study.tell(trial, [value, trial.params["width"]] if several else value)
    return study


def drawn(study: Any) -> list[dict[str, Any]]:
    return [trial.params for trial in study.trials]


def made(name: str, **arguments: Any) -> Tuner:
    tuner = build("tuners", name, arguments, {"seed": 7, "directions": ["max"], "max_resource": 9})
    assert isinstance(tuner, Tuner)
    return tuner


DIRECT: dict[str, tuple[dict[str, Any], Callable[[int], Any], int]] = {
    "random": ({}, lambda seed: samplers.RandomSampler(seed=seed), 6),
    "bayesian": (
        {"startup": 4},
        lambda seed: samplers.TPESampler(seed=seed, n_startup_trials=4, multivariate=True, group=True),
        12,
    ),
    "gp": (
        {"startup": 3, "method": "gp"},
        lambda seed: samplers.GPSampler(seed=seed, n_startup_trials=3),
        4,
    ),
    "evolution": (
        {},
        lambda seed: samplers.CmaEsSampler(
            seed=seed, with_margin=True, independent_sampler=samplers.RandomSampler(seed=seed)
        ),
        20,
    ),
    "nsga2": ({"population": 4}, lambda seed: samplers.NSGAIISampler(seed=seed, population_size=4), 12),
}


@pytest.mark.parametrize("name", list(DIRECT))
def test_same_points_as_optuna_also_when_resumed(name: str) -> None:
    arguments, direct, trials = DIRECT[name]
    plugin = "bayesian" if name == "gp" else name
    ours = drawn(search(made(plugin, **arguments).sampler, trials))
    assert ours == drawn(search(lambda number: direct(trial_seed(7, number)), trials))
    part = search(made(plugin, **arguments).sampler, trials - 2)
    assert ours == drawn(search(made(plugin, **arguments).sampler, trials, study=part))
    first = 4 if name == "nsga2" else trials  # children share parameters with their parents
    assert len({params["lr"] for params in ours[:first]}) == first  # no number repeats another's draw


def test_several_objectives_are_taken_where_nothing_is_stopped() -> None:
    context = {"seed": 7, "directions": ["max", "min"], "max_resource": 9}
    for name, arguments, direct in (
        ("bayesian", {"startup": 4}, DIRECT["bayesian"][1]),
        (
            "nsga2",
            {"population": 4, "algorithm": "nsga3"},
            lambda seed: samplers.NSGAIIISampler(seed=seed, population_size=4),
        ),
    ):
        tuner = build("tuners", name, arguments, context)
        ours = search(tuner.sampler, 10, several=True)
        theirs = search(lambda number, make=direct: make(trial_seed(7, number)), 10, several=True)  # type: ignore[misc]
        assert drawn(ours) == drawn(theirs)
        assert [trial.number for trial in ours.best_trials] == [trial.number for trial in theirs.best_trials]


@pytest.mark.parametrize("name", ["random", "bayesian", "grid", "quasi_random"])
def test_several_objectives_with_a_pruner_are_refused(name: str) -> None:
    with pytest.raises(RequestError, match="pruner: got 'median' with 2 objectives, expected none"):
        build("tuners", name, {"pruner": "median"}, {"directions": ["max", "min"], "n_trials": 4})


@pytest.mark.parametrize("name", ["evolution", "hyperband", "asha"])
def test_tuners_of_one_objective_say_so(name: str) -> None:
    with pytest.raises(RequestError, match=f"got {name} with 2 objectives, expected nsga2"):
        build("tuners", name, {}, {"directions": ["max", "min"], "max_resource": 9})


def test_pruners_by_name() -> None:
    assert made("random").pruner is None and not made("random").stops_early
    median = made("random", pruner="median", min_epochs=2, pruner_startup=3).pruner
    assert isinstance(median, MedianPruner)
    assert (median._n_startup_trials, median._n_warmup_steps, median._percentile) == (3, 2, 50.0)
    percentile = made("bayesian", pruner="percentile", percentile=10.0).pruner
    assert isinstance(percentile, PercentilePruner) and percentile._percentile == 10.0
    halving = made("bayesian", pruner="successive_halving", eta=4, min_epochs=2).pruner
    assert isinstance(halving, SuccessiveHalvingPruner)
    assert (halving._min_resource, halving._reduction_factor) == (2, 4)
    patient = made("random", pruner="median", patience=3).pruner
    assert isinstance(patient, PatientPruner) and isinstance(patient._wrapped_pruner, MedianPruner)
    alone = made("random", patience=3).pruner
    assert isinstance(alone, PatientPruner) and alone._wrapped_pruner is None
    brackets = made("random", pruner="hyperband").pruner
    assert isinstance(brackets, HyperbandPruner)
    assert (brackets._min_resource, brackets._max_resource, brackets._reduction_factor) == (1, 9, 3)


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ({"pruner": "median", "min_epochs": 0}, "min_epochs: got 0, expected at least 1 epoch"),
        ({"pruner": "hyperband", "eta": 1}, "eta: got 1, expected at least 2"),
        ({"pruner": "percentile", "percentile": 100.0}, "percentile: got 100.0, expected a value in"),
        ({"pruner": "hyperband", "patience": 2}, "patience: got 2 with pruner hyperband, expected 0"),
        ({"pruner": "hyperband", "min_epochs": 10}, r"max_resource: got 9, expected at least min_epochs \(10\)"),
        ({"startup": 0}, "startup: got 0, expected at least 1 trial"),
    ],
    ids=["min_epochs", "eta", "percentile", "patience", "max_resource", "startup"],
)
def test_wrong_arguments_are_refused(arguments: dict[str, Any], line: str) -> None:
    with pytest.raises(RequestError, match=line):
        made("bayesian", **arguments)


def test_grid_is_complete_and_in_order() -> None:
    tuner = made("grid", points=3)
    assert tuner.points is not None
    space = {
        "lr": FloatDistribution(0.01, 1.0, log=True),
        "width": IntDistribution(1, 3),
        "norm": CategoricalDistribution(["batch", None]),
        "drop": FloatDistribution(0.0, 0.5, step=0.25),
    }
    points = list(tuner.points(space))
    assert len(points) == 3 * 3 * 2 * 3
    assert points[0] == {"lr": 0.01, "width": 1, "norm": "batch", "drop": 0.0}
    assert points[1] == {"lr": 0.01, "width": 1, "norm": "batch", "drop": 0.25}
    assert points[3] == {"lr": 0.01, "width": 1, "norm": None, "drop": 0.0}
    assert points[-1] == {"lr": 1.0, "width": 3, "norm": None, "drop": 0.5}
    assert sorted({point["lr"] for point in points}) == pytest.approx([0.01, 0.1, 1.0])
    assert {point["width"] for point in points} == {1, 2, 3}  # the same three that every sampler draws from
    assert points == list(made("grid", points=3).points(space))  # type: ignore[misc]


def test_grid_takes_the_first_points_or_refuses_too_many() -> None:
    space = {"a": IntDistribution(0, 999), "b": IntDistribution(0, 999)}
    few = build("tuners", "grid", {}, {"n_trials": 3})
    assert list(few.points(space)) == [{"a": 0, "b": 0}, {"a": 0, "b": 1}, {"a": 0, "b": 2}]
    with pytest.raises(RequestError, match="the grid has 1,000,000 combinations"):
        made("grid").points(space)  # type: ignore[misc]
    logarithmic = list(made("grid", points=3).points({"width": IntDistribution(1, 16, log=True)}))  # type: ignore[misc]
    assert [point["width"] for point in logarithmic] == [1, 4, 16]


@pytest.mark.parametrize("sequence", ["sobol", "halton"])
def test_quasi_random_points_are_optunas(sequence: str) -> None:
    space: dict[str, Any] = SPACE | {
        "norm": CategoricalDistribution(["batch", "group", None]),
        "units": IntDistribution(4, 64, log=True),
        "depth": IntDistribution(2, 8, step=2),
        "decay": FloatDistribution(0.0, 1.0),
    }
    space = dict(sorted(space.items()))  # the order in which ours gives out coordinates
    tuner = build("tuners", "quasi_random", {"sequence": sequence}, {"seed": 5, "n_trials": 16})
    ours = list(tuner.points(space))
    direct = samplers.QMCSampler(qmc_type=sequence, scramble=True, seed=5)
    study = optuna.create_study(sampler=direct)
    study.add_trial(optuna.trial.create_trial(params=ours[0], distributions=space, value=0.0))  # fixes the space
    theirs = []
    for _ in range(16):
        trial = study.ask(space)
        theirs.append(trial.params)
        study.tell(trial, 0.0)
    for mine, other in zip(ours, theirs, strict=True):
        for key, value in other.items():
            assert mine[key] == (pytest.approx(value) if isinstance(value, float) else value)
    more = build("tuners", "quasi_random", {"sequence": sequence}, {"seed": 5, "n_trials": 24})
    assert list(more.points(space))[:16] == ours  # more trials later go on where the sequence was
