"""Searches on recorded curves: what a tuner would have found, and after how many epochs, without training anything."""

from __future__ import annotations

import json
import math
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import optuna
from grids import EPOCHS, GRIDS, HERE, load
from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution
from optuna.pruners import NopPruner
from optuna.trial import TrialState

from bigopt import Tuner, registry
from bigopt.store import write_atomic
from bigopt.vocabulary.tuner import Trial

FULL_TRAININGS = 25
"""What every search may spend, in full trainings."""
METHODS: dict[str, tuple[str, dict[str, Any]]] = {
    "random": ("random", {}),
    "quasi_random": ("quasi_random", {}),
    "tpe": ("bayesian", {}),
    "tpe + median": ("bayesian", {"pruner": "median"}),
    "tpe + halving": ("bayesian", {"pruner": "successive_halving"}),
    "tpe + Hyperband pruner": ("bayesian", {"pruner": "hyperband"}),
    "random + halving": ("random", {"pruner": "successive_halving"}),
    "random + Hyperband pruner": ("random", {"pruner": "hyperband"}),
    "asha": ("asha", {}),
    "asha + tpe": ("asha", {"sampler": "tpe"}),
    "hyperband": ("hyperband", {}),
    "hyperband + tpe": ("hyperband", {"sampler": "tpe"}),
    "gp": ("bayesian", {"method": "gp"}),
}
Seen = Callable[[float, float], bool]
"""Told of every epoch's value and seconds; False when the budget is spent."""


@dataclass(frozen=True)
class Table:
    """Recorded curves.

    Attributes:
        space: positions on the grid, in order for numbers, choices otherwise.
        curves: accuracy and seconds of every epoch, by position.
        full: epochs of a full training.
    """

    space: dict[str, BaseDistribution]
    curves: dict[tuple[Any, ...], tuple[list[float], list[float]]]
    full: int

    def at(self, params: dict[str, Any]) -> tuple[list[float], list[float]]:
        """The curve of a configuration."""
        return self.curves[tuple(params[name] for name in self.space)]


def read(dataset: str) -> Table:
    """The table of a dataset: as much of the grid as is recorded completely, whole rates and weight decays.

    Raises:
        SystemExit: nothing is complete.
    """
    recorded = [(line["config"], line["accuracy"], line["seconds"]) for line in load(dataset)]
    grid = dict(GRIDS[dataset])
    each = math.prod(len(values) for name, values in grid.items() if name not in ("lr", "weight_decay"))
    counts = Counter((config["lr"], config["weight_decay"]) for config, _, _ in recorded)
    decays = [value for value in grid["weight_decay"] if all(counts[rate, value] == each for rate in grid["lr"])]
    grid["weight_decay"] = decays or grid["weight_decay"][:1]
    grid["lr"] = [rate for rate in grid["lr"] if all(counts[rate, decay] == each for decay in grid["weight_decay"])]
    if not grid["lr"]:
        raise SystemExit(f"{dataset}: {len(recorded)} configurations are recorded, too few; run `record` first")
    space: dict[str, BaseDistribution] = {
        name: CategoricalDistribution(values) if isinstance(values[0], str) else IntDistribution(0, len(values) - 1)
        for name, values in grid.items()
    }
    curves = {}
    for config, accuracy, seconds in recorded:
        if config["weight_decay"] in grid["weight_decay"] and config["lr"] in grid["lr"]:
            key = [config[name] if isinstance(config[name], str) else grid[name].index(config[name]) for name in grid]
            curves[tuple(key)] = (accuracy, seconds)
    return Table(space, curves, EPOCHS[dataset])


def search(table: Table, tuner: Tuner, seed: int, told: Seen) -> None:
    """One search with one worker, until the budget is spent; seeds of trials follow from their number."""
    study = optuna.create_study(
        direction="maximize", pruner=tuner.pruner or NopPruner(), study_name=f"replay-{seed}", sampler=tuner.sampler(0)
    )
    if tuner.scheduler is not None:
        scheduled(table, tuner, study, told)
        return
    points = iter(tuner.points(table.space)) if tuner.points else None
    number = 0
    while True:
        if points is not None:
            study.enqueue_trial(next(points))
        study.sampler = tuner.sampler(number)
        trial = study.ask(table.space)
        number += 1
        values, seconds = table.at(trial.params)
        for epoch in range(1, table.full + 1):
            if not told(values[epoch - 1], seconds[epoch - 1]):
                return
            trial.report(values[epoch - 1], epoch)
            if epoch < table.full and trial.should_prune():
                study.tell(trial, state=TrialState.PRUNED)
                break
        else:
            study.tell(trial, max(values))


def scheduled(table: Table, tuner: Tuner, study: optuna.Study, told: Seen) -> None:
    """The same for a scheduler: a paused trial stays open until it goes on or is stopped for good."""
    scheduler, seen, trials = tuner.scheduler, [], []
    assert scheduler is not None
    while (given := scheduler.next(seen)) is not None:
        if given.id == len(seen):
            study.sampler = tuner.sampler(given.id)
            trials.append(study.ask(table.space))
            seen.append(Trial(given.id))
        trial, values = trials[given.id], dict(seen[given.id].values)
        accuracy, seconds = table.at(trial.params)
        for epoch in range(given.start + 1, given.until + 1):
            if not told(accuracy[epoch - 1], seconds[epoch - 1]):
                return
            values[epoch] = accuracy[epoch - 1]
            trial.report(values[epoch], epoch)
        whole = given.until == table.full
        seen[given.id] = Trial(given.id, values, given.until, "done" if whole else "paused")
        if whole:
            study.tell(trial, max(values.values()))
        for number in scheduler.stopped(seen):
            study.tell(trials[number], state=TrialState.PRUNED)
            seen[number] = replace(seen[number], standing="done")


def one(table: Table, name: str, seed: int) -> dict[str, Any]:
    """The improvements of one search: epochs and seconds spent so far, and the value."""
    plugin, arguments = METHODS[name]
    budget = FULL_TRAININGS * table.full
    many = {"hyperband": 10 * FULL_TRAININGS, "quasi_random": FULL_TRAININGS + 1}.get(plugin)
    context = {"seed": seed, "max_resource": table.full, "directions": ["max"], "n_trials": many}
    tuner = registry.build("tuners", plugin, arguments, context)
    steps: list[tuple[int, float, float]] = []
    spent, clock, best = 0, 0.0, float("-inf")

    def told(value: float, seconds: float) -> bool:
        nonlocal spent, clock, best
        if spent == budget:
            return False
        spent, clock = spent + 1, clock + seconds
        if value > best:
            best = value
            steps.append((spent, round(clock, 3), value))
        return True

    search(table, tuner, seed, told)
    return {"epochs": spent, "seconds": round(clock, 3), "steps": steps}


def replay(dataset: str, replays: int, only: list[str]) -> None:
    """Replays what is missing in ``replays_<dataset>.json``; a start that was killed goes on."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore")
    table = read(dataset)
    for name, seed in wanted(replays, only):
        kept = replayed(dataset, len(table.curves))
        done = kept["methods"].setdefault(name, [])
        if seed < len(done):
            continue
        done.append(one(table, name, seed))
        write_atomic(HERE / f"replays_{dataset}.json", (json.dumps(kept, separators=(",", ":")) + "\n").encode())


def replayed(dataset: str, size: int) -> dict[str, Any]:
    """What was replayed so far on a table of this size, by method and seed."""
    file = HERE / f"replays_{dataset}.json"
    kept = json.loads(file.read_text()) if file.is_file() else {}
    return kept if kept.get("configurations") == size else {"configurations": size, "methods": {}}


def wanted(replays: int, only: list[str]) -> Iterator[tuple[str, int]]:
    """Methods and seeds, method by method."""
    for name in only or list(METHODS):
        for seed in range(replays):
            yield name, seed
