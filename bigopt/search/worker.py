"""One worker: asks, tries, tells, until nothing is left."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from bigopt.search.away import end_helpers
from bigopt.search.claim import Claim, Claimer
from bigopt.search.configurations import BEAT
from bigopt.search.plan import Evaluate, Plan, Task
from bigopt.search.repeating import repeating
from bigopt.search.settle import settle
from bigopt.search.study import load

if TYPE_CHECKING:
    import optuna

PAUSE = 0.1
"""Seconds between two looks while running configurations have to report first."""


def work(plan: Plan, evaluate: Evaluate, stopping: Callable[[], bool], stop: Callable[[], None]) -> int | None:
    """Tries configurations one after the other.

    Args:
        plan: the sweep.
        evaluate: tries one.
        stopping: whether to begin no further one.
        stop: makes every worker begin no further one.

    Returns:
        the signal that ended the work, None where it is done.
    """
    study = load(plan.storage, plan.study)
    if plan.tuner.scheduler is not None:
        from bigopt.search.seen import SeenStudy

        study = SeenStudy.of(study)
    study.pruner = plan.tuner.pruner or study.pruner
    claimer = Claimer(plan, study)
    try:
        return _loop(plan, study, claimer, evaluate, stopping, stop)
    finally:
        end_helpers()


def _loop(
    plan: Plan,
    study: optuna.Study,
    claimer: Claimer,
    evaluate: Evaluate,
    stopping: Callable[[], bool],
    stop: Callable[[], None],
) -> int | None:
    while not stopping():
        claim = claimer.next()
        if claim is None:
            return None
        if isinstance(claim, bool):
            time.sleep(PAUSE)
            continue
        task = Task(claim.number, claim.trial.number, tuple(plan.space.lines(claim.values)), claim.values)
        with beating(plan, study, claim):
            result = evaluate(task)
        state = settle(plan, study, claim, result)
        if result.status == "interrupted":
            return result.signal
        if state == "failed" and plan.limits.fail_fast:
            stop()
    return None


@contextmanager
def beating(plan: Plan, study: optuna.Study, claim: Claim) -> Iterator[None]:
    """Shows signs of life while the block runs."""

    def beat() -> bool:
        # the storage may be away for a moment, or the try was taken for dead: telling will say so
        with suppress(Exception):
            study._storage.set_trial_user_attr(claim.trial._trial_id, BEAT, time.time())
        return False

    with repeating(beat, plan.limits.heartbeat, "bigopt-beat"):
        yield
