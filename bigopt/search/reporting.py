"""Inside a job: tells the study of every epoch, and stops where the tuner says so."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from bigopt.search.configurations import BASE, UNTIL
from bigopt.search.storage import Storage
from bigopt.search.study import CONTEXT, load
from bigopt.vocabulary.errors import Paused, Pruned
from bigopt.vocabulary.objective import Monitor

if TYPE_CHECKING:
    import optuna

    from bigopt.config import Checked


@dataclass(frozen=True)
class TrialPlace:
    """Where a job finds its trial.

    Attributes:
        storage: what ``hydra.sweeper.storage`` says, resolved; None for the sweep's own journal.
        folder: the sweep's folder.
        study: name of the study.
        number: Optuna's number of the trial.
    """

    storage: str | None
    folder: Any
    study: str
    number: int


class Reporter:
    """Reports one trial's objective after each epoch of the last stage that trains, counted from 1.

    A :class:`bigopt.vocabulary.run.Progress` that draws nothing.

    Args:
        trial: the trial.
        monitor: the objective.
        tell: whether anybody wants to know; several objectives have no value per epoch.
    """

    def __init__(self, trial: optuna.Trial, monitor: Monitor, tell: bool = True) -> None:
        self.trial = trial
        self.monitor = monitor
        self.tell = tell
        self.stage = "baseline"
        self.epochs: int | None = None
        frozen = trial.storage.get_trial(trial._trial_id)
        self.until: int | None = frozen.user_attrs.get(UNTIL)
        self.base: int | None = frozen.user_attrs.get(BASE)
        self.reported = dict(frozen.intermediate_values)

    def plan(self, stages: Mapping[str, int]) -> None:
        """Told which stages there are, each with the epochs that it trains for."""
        training = [name for name, epochs in stages.items() if epochs > 0]
        if training:
            self.stage = training[-1]
            self.epochs = stages[self.stage]

    def start(self, name: str, total: int) -> None:
        """Nothing."""

    def advance(self, steps: int = 1, **values: float) -> None:
        """Nothing."""

    def stop(self) -> None:
        """Nothing."""

    def epoch(self, stage: str, epoch: int, values: Mapping[str, float]) -> None:
        """Reports the epoch.

        Raises:
            Pruned: the tuner stops the trial.
            Paused: the trial has had the epochs that it was given; it may go on later.
        """
        if not self.tell or not self._concerns(stage) or self.monitor.metric not in values:
            return
        if self.base is None:
            self.base = epoch - 1
            self.trial.set_user_attr(BASE, self.base)
        step = epoch - self.base
        if step not in self.reported:
            value = float(values[self.monitor.metric])
            self.reported[step] = value
            self._tell(value, step)
        if self.until is not None:
            if step >= self.until and (self.epochs is None or step < self.epochs):
                raise Paused(f"paused after {step} epochs")
        elif self.trial.should_prune():
            raise Pruned(f"stopped after {step} epochs")

    def _tell(self, value: float, step: int) -> None:
        from optuna.exceptions import UpdateFinishedTrialError

        try:
            self.trial.report(value, step)
        except UpdateFinishedTrialError:  # somebody else goes on from the checkpoint that is written now
            raise Paused("this try was taken for dead") from None

    def _concerns(self, stage: str) -> bool:
        return stage == self.stage or re.fullmatch(re.escape(self.stage) + r"-\d+", stage) is not None


def reporter(place: TrialPlace, checked: Checked) -> Reporter:
    """The reporter of a job."""
    import optuna

    from bigopt.search.request import make_tuner
    from bigopt.vocabulary.objective import parse_objective

    study = _study(place, load)
    tuner = make_tuner(checked.tuner, study.user_attrs[CONTEXT])
    study.pruner = (tuner.pruner if tuner is not None else None) or optuna.pruners.NopPruner()
    trial_id = study._storage.get_trial_id_from_study_id_trial_number(study._study_id, place.number)
    monitors = parse_objective(checked.settings.objective)
    return Reporter(optuna.Trial(study, trial_id), monitors[0], tell=len(study.directions) == 1)


def _study(place: TrialPlace, opening: Callable[[Storage, str], Any]) -> Any:
    """The study, opened once in a process: reading a long journal again for each trial would slow a sweep down."""
    import os

    return _opened(place.storage, str(place.folder), place.study, os.getpid(), opening)


@lru_cache(maxsize=4)
def _opened(storage: str | None, folder: str, name: str, _pid: int, opening: Callable[[Storage, str], Any]) -> Any:
    from pathlib import Path

    return opening(Storage.of(storage, Path(folder)), name)
