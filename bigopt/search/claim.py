"""Who tries what next. Only one process at a time decides; what died is given to the next one."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from bigopt.search.configurations import (
    ATTEMPT,
    BASE,
    BEAT,
    DRAW,
    LOSSES,
    OWNER,
    PAUSED,
    POINT,
    REASON,
    ROOT,
    UNTIL,
    VOID,
    Configuration,
    configurations,
    scheduled,
    tries,
)
from bigopt.search.plan import Plan
from bigopt.store import Owner, me
from bigopt.vocabulary.errors import RunFailed

if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial

FORBIDDEN_TRIES = 1000
WITHOUT_LOCK = ("grpc", "mysql")
INHERITED = (ROOT, ATTEMPT, LOSSES, UNTIL, POINT, DRAW, BASE)


@dataclass(frozen=True)
class Claim:
    """A configuration that this process is to try.

    Attributes:
        number: the configuration's.
        trial: Optuna's.
        values: of its parameters.
    """

    number: int
    trial: optuna.Trial
    values: Mapping[str, Any]


@dataclass
class Claimer:
    """Hands out configurations of one study to this process."""

    plan: Plan
    study: optuna.Study

    def next(self) -> Claim | None | bool:
        """What to try now; None when nothing is left, False when running ones have to report first.

        Raises:
            RunFailed: the space forbids everything that the tuner comes up with.
        """
        for _ in range(FORBIDDEN_TRIES):
            with self.plan.storage.turn():
                taken = self._take()
            if not isinstance(taken, tuple):
                return taken
            number, trial = taken
            values = self.plan.space.suggest(trial)
            if not self.plan.space.forbids(values):
                return Claim(number, trial, values)
            self._void(trial, "forbidden")
        raise RunFailed(f"forbid: the tuner proposed {FORBIDDEN_TRIES} forbidden combinations one after the other")

    def remaining(self) -> bool:
        """Whether something is left to try, now or once running ones have reported."""
        known = configurations(tries(self.study))
        if any(each.state == "waiting" and each.started for each in known):
            return True
        scheduler = self.plan.tuner.scheduler
        started = sum(each.started for each in known)
        if scheduler is not None:
            seen = scheduled(known)
            return not scheduler.finished(seen) and (
                any(each.standing in ("running", "paused") for each in seen) or self._room(started)
            )
        return self._room(started) and (
            self.plan.tuner.points is None
            or len(self.points) > _taken_points(known)
            or any(each.state == "waiting" for each in known)
        )

    @cached_property
    def points(self) -> list[dict[str, Any]]:
        """The tuner's own points that differ in what counts and are not forbidden."""
        space, made = self.plan.space, self.plan.tuner.points
        found: dict[str, dict[str, Any]] = {}
        for point in made(space.distributions) if made is not None else ():
            projected = space.projected(point)
            if None in projected.values() or not space.forbids(projected):
                found.setdefault(repr(sorted(projected.items())), projected)
        return list(found.values())

    def _room(self, started: int) -> bool:
        """Whether a further configuration may be started."""
        wanted = self.plan.limits.n_trials
        return wanted is None or started < wanted

    def _take(self) -> tuple[int, optuna.Trial] | None | bool:
        study = self.study
        trials = tries(study)
        known = configurations(trials)
        retried = next((each for each in known if each.state == "waiting" and each.started), None)
        fresh = 1 + max((int(trial.user_attrs.get(DRAW, -1)) for trial in trials), default=-1)
        if retried is not None:
            draw = int(retried.last.user_attrs.get(DRAW, fresh))
            return self._begin(retried.last, retried.number, retried.last.user_attrs.get(UNTIL), draw)
        until = None
        if self.plan.tuner.scheduler is not None:
            for position in self.plan.tuner.scheduler.stopped(scheduled(known)):
                self._stop([each for each in known if each.started][position])
            known = configurations(tries(study))
            assigned = self.plan.tuner.scheduler.next(scheduled(known))
            if assigned is None:
                return None if self.plan.tuner.scheduler.finished(scheduled(known)) else False
            until = assigned.until
            started = [each for each in known if each.started]
            if assigned.id < len(started):
                return self._go_on(started[assigned.id], until)
        if not self._room(sum(each.started for each in known)):
            return None
        queued = next((each for each in known if each.state == "waiting"), None)
        if queued is not None:
            return self._begin(queued.last, queued.number, until, fresh)
        if self.plan.tuner.points is not None:
            position = _taken_points(known)
            if position >= len(self.points):
                return None
            point = {name: value for name, value in self.points[position].items() if value is not None}
            study.enqueue_trial(point, user_attrs={POINT: position})
            queued = configurations(tries(study))[-1]
            return self._begin(queued.last, queued.number, until, fresh)
        study.sampler = self.plan.tuner.sampler(fresh)
        trial = study.ask()
        if self.plan.storage.kind in WITHOUT_LOCK and self._surplus(trial):
            self._void(trial, "one too many")
            return None
        self._mark(trial, until, fresh)
        return trial.number, trial

    def _begin(self, queued: FrozenTrial, number: int, until: int | None, draw: int) -> tuple[int, optuna.Trial] | bool:
        """Starts a trial that waits in the queue."""
        import optuna
        from optuna.trial import TrialState

        if not self.study._storage.set_trial_state_values(queued._trial_id, state=TrialState.RUNNING):
            return False  # somebody without our lock was faster
        self.study.sampler = self.plan.tuner.sampler(draw)
        trial = optuna.Trial(self.study, queued._trial_id)
        self._mark(trial, until, draw)
        return number, trial

    def _go_on(self, paused: Configuration, until: int) -> tuple[int, optuna.Trial]:
        import optuna

        self.study.sampler = self.plan.tuner.sampler(paused.draw)
        trial = optuna.Trial(self.study, paused.last._trial_id)
        self._mark(trial, until, paused.draw)
        trial.set_user_attr(PAUSED, False)
        return paused.number, trial

    def _mark(self, trial: optuna.Trial, until: int | None, draw: int) -> None:
        """Signs a trial, first of all."""
        trial.set_user_attr(OWNER, str(me()))
        trial.set_user_attr(BEAT, time.time())
        trial.set_user_attr(DRAW, draw)
        if until is not None:
            trial.set_user_attr(UNTIL, until)

    def _stop(self, paused: Configuration) -> None:
        from optuna.trial import TrialState

        self.study.sampler = self.plan.tuner.sampler(paused.draw)
        self.study.tell(paused.last.number, state=TrialState.PRUNED)

    def _void(self, trial: optuna.Trial, why: str) -> None:
        from optuna.trial import TrialState

        trial.set_user_attr(VOID, why)
        self.study.tell(trial, state=TrialState.FAIL)

    def _surplus(self, trial: optuna.Trial) -> bool:
        """Whether others took the last places at the same moment, where storages have no lock for all machines."""
        known = configurations(tries(self.study))
        before = sum(each.started and each.number < trial.number for each in known)
        return not self._room(before)


@dataclass
class Reaper:
    """Fails what dead processes left running, and puts it in the queue again.

    Attributes:
        plan: the sweep.
        study: its study.
        beats: newest sign of life of each trial, and when this process first saw it; clocks differ between machines.
    """

    plan: Plan
    study: optuna.Study
    beats: dict[int, tuple[float, float]] = field(default_factory=dict)

    def reap(self) -> list[int]:
        """Looks once; returns the numbers of the configurations whose try was found dead."""
        dead = []
        with self.plan.storage.turn():
            for each in configurations(tries(self.study)):
                for trial in each.tries:
                    if trial.state.name == "RUNNING" and not trial.user_attrs.get(PAUSED) and self._dead(trial):
                        again(self.study, each, trial, "its process died", self.plan.limits.max_retries)
                        dead.append(each.number)
        return dead

    def _dead(self, trial: FrozenTrial) -> bool:
        owner = Owner.parse(str(trial.user_attrs.get(OWNER, "")))
        alive = owner.alive() if owner is not None else None
        if alive is not None:
            return not alive
        if owner is None and self.plan.storage.kind not in WITHOUT_LOCK:
            return True  # it died between asking and signing, inside the lock that we hold
        beat = float(trial.user_attrs.get(BEAT, 0.0))
        now = time.monotonic()
        if self.beats.get(trial.number, (None, 0.0))[0] != beat:
            self.beats[trial.number] = (beat, now)
        return now - self.beats[trial.number][1] > self.plan.limits.grace


def again(study: optuna.Study, each: Configuration, trial: FrozenTrial, why: str, most: int | None) -> bool:
    """Fails a try and queues the configuration again, keeping what it reported; whether it was queued.

    The queue comes first: a process that dies in between leaves a try that is found again, and no configuration is
    lost; a second entry for the same try does not count (see :func:`configurations`).

    Args:
        study: the study.
        each: the configuration.
        trial: its try.
        why: for the record.
        most: how many losses are forgiven; None where this is none.
    """
    from optuna.exceptions import UpdateFinishedTrialError
    from optuna.trial import TrialState, create_trial

    attrs = trial.user_attrs
    losses = int(attrs.get(LOSSES, 0)) + (most is not None)
    attempt = int(attrs.get(ATTEMPT, 0)) + 1
    queue = most is None or losses <= most
    if queue and not any(int(other.user_attrs.get(ATTEMPT, 0)) >= attempt for other in each.tries):
        kept = {name: attrs[name] for name in INHERITED if name in attrs}
        study.add_trial(
            create_trial(
                state=TrialState.WAITING,
                system_attrs={"fixed_params": dict(trial.params) or trial.system_attrs.get("fixed_params", {})},
                user_attrs={**kept, ROOT: each.number, ATTEMPT: attempt, LOSSES: losses},
                intermediate_values=dict(trial.intermediate_values),
            )
        )
    try:
        study._storage.set_trial_user_attr(trial._trial_id, REASON, why)
        study._storage.set_trial_state_values(trial._trial_id, state=TrialState.FAIL)
    except UpdateFinishedTrialError:
        pass  # it came to an end after all, or somebody else found it
    return queue


def _taken_points(known: Sequence[Configuration]) -> int:
    return sum(POINT in each.last.user_attrs for each in known)
