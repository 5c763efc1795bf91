"""A sweep without training: objectives that take milliseconds, in plans like the real ones."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import optuna

from bigopt.search.configurations import Configuration
from bigopt.search.plan import Limits, Plan, Result, Task
from bigopt.search.running import Sweep, run_sweep
from bigopt.search.space import Space, ordered
from bigopt.search.storage import Storage
from bigopt.search.syntax import parameter, parse
from bigopt.vocabulary.objective import Monitor
from bigopt.vocabulary.tuner import Tuner, trial_seed

SPACE = ("x=interval(0,1)", "c=a,b")


def space(*lines: str, **more: Any) -> Space:
    """A space of override lines."""
    return Space(parameters=ordered([parameter(parse(line)) for line in lines or SPACE]), **more)


def tuner(kind: str = "tpe", **more: Any) -> Tuner:
    """A tuner whose sampler follows from the trial's number."""
    samplers: dict[str, Callable[[int], Any]] = {
        "tpe": lambda n: optuna.samplers.TPESampler(seed=trial_seed(0, n), n_startup_trials=4),
        "random": lambda n: optuna.samplers.RandomSampler(seed=trial_seed(0, n)),
        "gp": lambda n: optuna.samplers.GPSampler(seed=trial_seed(0, n), n_startup_trials=4),
    }
    return Tuner(samplers[kind], **more)


def plan(folder: Path, n_trials: int | None = 10, *, workers: int = 0, storage: str | None = None, **more: Any) -> Plan:
    """A plan; limits are given by their own names."""
    limits = {name: more.pop(name) for name in list(more) if name in Limits.__dataclass_fields__}
    values: dict[str, Any] = {
        "study": "study",
        "folder": folder,
        "storage": Storage.of(storage, folder),
        "space": space(),
        "objectives": (Monitor("val/loss", "min"),),
        "tuner": tuner(),
    }
    return Plan(**values | more, limits=Limits(n_trials=n_trials, **limits), workers=workers)


def report(loss: float, **row: Any) -> dict[str, Any]:
    """A report with one row."""
    return {"status": "finished", "stages": [{"name": "baseline", "metrics": {"val/loss": loss}, **row}], "budget": {}}


def loss(values: Mapping[str, Any]) -> float:
    """What is minimised: 0 at x = 0.3, c = b."""
    return float((values["x"] - 0.3) ** 2 + (values.get("c") == "a"))


def good(task: Task) -> Result:
    """Trains in no time."""
    return Result("finished", report(loss(task.values)))


def dying(folder: Path, chosen: Callable[[int], bool]) -> Callable[[Task], Result]:
    """Like :func:`good`, but the first try of the chosen configurations kills its process."""

    def evaluate(task: Task) -> Result:
        mark = folder / f"dead-{task.number}"
        if chosen(task.number) and not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return good(task)

    return evaluate


def slow(seconds: float) -> Callable[[Task], Result]:
    """Trains in some time; a SIGTERM interrupts it."""

    def train(task: Task) -> Result:
        try:
            time.sleep(seconds)
        except SystemExit:
            return Result("interrupted", signal=signal.SIGTERM)
        return good(task)

    return train


def marking(folder: Path, seconds: float = 0.0) -> Callable[[Task], Result]:
    """Leaves a line for every training that came to its end."""
    train = slow(seconds)

    def marked(task: Task) -> Result:
        result = train(task)
        if result.status == "finished":
            with open(folder / "ended", "a") as file:
                file.write(f"{task.number} {os.getpid()}\n")
        return result

    return marked


def run(plan: Plan, evaluate: Callable[[Task], Result] = good) -> Sweep:
    """Runs a plan without a word."""
    return run_sweep(plan, evaluate, live=False)


def points(known: Any) -> list[tuple[dict[str, Any], Any]]:
    """Parameters and values of every configuration, in order."""
    return [(dict(each.last.params), each.last.values) for each in known]


def states(sweep: Sweep) -> list[str]:
    """The configurations' states, in order."""
    return [each.state for each in sweep.known]


def numbers(known: list[Configuration]) -> list[int]:
    """The configurations' numbers."""
    return [each.number for each in known]
