"""What a sweep is to do, and what came of one try."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from bigopt.search.space import Space
from bigopt.search.storage import Storage
from bigopt.vocabulary.objective import Monitor
from bigopt.vocabulary.tuner import Tuner

Status = Literal["finished", "pruned", "paused", "failed", "refused", "interrupted", "lost"]


@dataclass(frozen=True)
class Task:
    """One try of a configuration.

    Attributes:
        number: of the configuration, and of its folder.
        trial: Optuna's number of the try; another one when it was retried.
        lines: overrides.
        values: what was chosen.
    """

    number: int
    trial: int
    lines: tuple[str, ...]
    values: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Result:
    """What one try came to.

    Attributes:
        status: how it ended; ``lost`` where its process died and nobody knows.
        report: the run's report, empty where none was made.
        problems: what went wrong, one line each.
        signal: number of the signal that interrupted it.
    """

    status: Status
    report: Mapping[str, Any] = field(default_factory=dict)
    problems: tuple[str, ...] = ()
    signal: int | None = None


Evaluate = Callable[[Task], Result]


@dataclass(frozen=True)
class Limits:
    """When a sweep ends, and how it takes failures.

    Attributes:
        n_trials: configurations in total; None for as many as the tuner plans.
        timeout: seconds after which no further trial starts; None for none.
        target: value of the first objective at which no further trial starts; None for none.
        patience: finished trials without a better one after which no further trial starts; None for none.
        worth: gain of the first objective below which going on is not worth it; None for always worth it.
        worth_trials: completed configurations before that is asked.
        max_retries: how often a configuration whose process died is tried again.
        fail_fast: end at the first failed trial.
        heartbeat: seconds between two signs of life of a running trial.
        grace: seconds without one after which another machine's trial counts as dead.
    """

    n_trials: int | None = None
    timeout: float | None = None
    target: float | None = None
    patience: int | None = None
    worth: float | None = None
    worth_trials: int = 20
    max_retries: int = 2
    fail_fast: bool = False
    heartbeat: float = 15.0
    grace: float = 120.0


@dataclass(frozen=True)
class Plan:
    """A sweep.

    Attributes:
        study: name of the study.
        folder: where it leaves its files.
        storage: where the study is kept.
        space: what is searched.
        objectives: what is optimised, the first one first.
        tuner: chooses.
        limits: when it ends.
        workers: processes; 0 works in this one.
        enqueue: points that are tried first.
        fixed: facts of the configuration that must not change when a study goes on, in words by name.
        context: what the tuner was filled with, so that jobs can build the same one.
    """

    study: str
    folder: Path
    storage: Storage
    space: Space
    objectives: tuple[Monitor, ...]
    tuner: Tuner
    limits: Limits = field(default_factory=Limits)
    workers: int = 1
    enqueue: Sequence[Mapping[str, Any]] = ()
    fixed: Mapping[str, str] = field(default_factory=dict)
    context: Mapping[str, Any] = field(default_factory=dict)

    @property
    def directions(self) -> list[Literal["minimize", "maximize"]]:
        """Optuna's words for the objectives' modes."""
        return ["maximize" if monitor.mode == "max" else "minimize" for monitor in self.objectives]
