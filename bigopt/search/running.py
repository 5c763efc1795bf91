"""A sweep from its plan to its files, top to bottom."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from bigopt.search.claim import Claimer, Reaper
from bigopt.search.configurations import Configuration, configurations, tries
from bigopt.search.live import Live
from bigopt.search.outcome import best, completed, enough, feasible
from bigopt.search.plan import Evaluate, Plan
from bigopt.search.pool import Pool, Stopper
from bigopt.search.study import prepare
from bigopt.search.terminator import Worth
from bigopt.search.worker import work

DONE, FAILED, OVER_BUDGET = 0, 1, 3
LOOK = 0.5
"""Seconds between two looks at the study."""


class Recorder(Protocol):
    """Told of a sweep as it goes."""

    def seen(self, known: Sequence[Configuration]) -> None:
        """The configurations as they are now; called often."""
        ...

    def ended(self, known: Sequence[Configuration], status: str) -> None:
        """The search is over."""
        ...


@dataclass(frozen=True)
class Sweep:
    """What came of a sweep.

    Attributes:
        code: exit code.
        status: ``finished``, ``interrupted`` or ``failed``.
        known: the configurations.
        signal: that ended it.
        why: why no further trial began before all were done; None where they were.
    """

    code: int
    status: str
    known: Sequence[Configuration] = field(default_factory=list)
    signal: int | None = None
    why: str | None = None


def run_sweep(
    plan: Plan,
    evaluate: Evaluate,
    *,
    recorder: Recorder | None = None,
    live: bool = True,
    before_fork: Callable[[], None] = lambda: None,
) -> Sweep:
    """Searches until the plan's limits, or a signal, end it.

    Args:
        plan: the sweep.
        evaluate: tries one configuration; called in the workers.
        recorder: told as it goes.
        live: whether to draw the line.
        before_fork: called in this process before each fork.

    Raises:
        RequestError: the study searched something else.
        RunFailed: workers die before they begin anything.
    """
    study = prepare(plan)
    claimer, reaper = Claimer(plan, study), Reaper(plan, study)
    reaper.reap()
    line = Live(plan, _total(plan, claimer)) if live else None
    watch = _Watch(plan, study, reaper, line, recorder)

    def fork_safe() -> None:
        plan.storage.close()
        before_fork()

    def say(text: str) -> None:
        print(f"bigopt: {text}", file=sys.stderr, flush=True)

    with Stopper(say) as stopper:
        watch.stop = stopper.flag.set
        pool = Pool(
            work=lambda stopping, stop: work(plan, evaluate, stopping, stop),
            size=plan.workers,
            stopper=stopper,
            remaining=claimer.remaining,
            before_fork=fork_safe,
            on_death=watch.death,
        )
        try:
            pool.run(watch.look, wait=lambda: watch.elsewhere(claimer))
        finally:
            pool.close()
        received = stopper.received
    reaper.reap()
    known = watch.look(last=True)
    if received is not None:
        status, code = "interrupted", 128 + received
    else:
        status, code = ("finished", judged(plan, known)) if completed(known) else ("failed", FAILED)
    if recorder is not None:
        recorder.ended(known, status)
    return Sweep(code, status, known, received, watch.why)


def judged(plan: Plan, known: Sequence[Configuration]) -> int:
    """0 where the best configuration keeps to the budgets, else 3."""
    top = best(known, plan.objectives)
    return DONE if top is not None and feasible(top.last) else OVER_BUDGET


@dataclass
class _Watch:
    """Looks at the study while the workers work."""

    plan: Plan
    study: Any
    reaper: Reaper
    line: Live | None
    recorder: Recorder | None
    stop: Callable[[], None] = lambda: None
    why: str | None = None
    known: list[Configuration] = field(default_factory=list)
    began: float = field(default_factory=time.monotonic)
    looked: float = 0.0
    reaped: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        self.worth = Worth(self.plan)

    def look(self, last: bool = False) -> list[Configuration]:
        now = time.monotonic()
        if now - self.looked < LOOK and not last:
            return self.known
        self.looked = now
        if now - self.reaped > self.plan.limits.heartbeat:
            self.reaped = now
            self.reaper.reap()
        self.known = configurations(tries(self.study))
        if self.why is None and not last:
            self.why = enough(self.plan, self.known) or self._late(now) or self.worth.over(self.known)
            if self.why is not None:
                print(f"bigopt: no further trial starts: {self.why}", file=sys.stderr, flush=True)
                self.stop()
        if self.line is not None:
            self.line.show(self.known, last)
        if self.recorder is not None:
            self.recorder.seen(self.known)
        return self.known

    def _late(self, now: float) -> str | None:
        timeout = self.plan.limits.timeout
        return f"{timeout:g} s are over" if timeout is not None and now - self.began > timeout else None

    def death(self, code: int) -> bool:
        """A worker died; what it had begun goes back to the queue."""
        dead = self.reaper.reap()
        what = f"signal {-code}" if code < 0 else f"exit code {code}"
        lost = f", trial {dead[0]} is tried again" if dead else ""
        print(f"bigopt: a worker died ({what}){lost}", file=sys.stderr, flush=True)
        return bool(dead)

    def elsewhere(self, claimer: Claimer) -> bool:
        """Whether other machines still run something that may have to be tried again here."""
        return any(each.state == "running" for each in self.look()) or claimer.remaining()


def _total(plan: Plan, claimer: Claimer) -> int | None:
    wanted = [plan.limits.n_trials] if plan.limits.n_trials is not None else []
    if plan.tuner.scheduler is not None and plan.tuner.scheduler.total is not None:
        wanted.append(plan.tuner.scheduler.total)
    if plan.tuner.points is not None:
        wanted.append(len(claimer.points))
    return min(wanted, default=None)
