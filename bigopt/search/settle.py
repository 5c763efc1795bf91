"""What a try came to, as the study keeps it."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from bigopt.report import value_of
from bigopt.search.claim import Claim, again
from bigopt.search.configurations import OWNER, PAUSED, REASON, REPORT, configurations, tries
from bigopt.search.plan import Plan, Result

if TYPE_CHECKING:
    import optuna

log = logging.getLogger("bigopt.search")

FIGURES = ("drop", "parameters", "nonzero", "macs", "bops", "bytes", "bytes_zip", "size_ratio", "speedup", "seconds")


def settle(plan: Plan, study: optuna.Study, claim: Claim, result: Result) -> str:
    """Tells the study; returns the configuration's state afterwards.

    Raises:
        nothing: a try that was taken for dead meanwhile is left to whoever has it now.
    """
    from optuna.exceptions import UpdateFinishedTrialError
    from optuna.trial import TrialState

    trial = claim.trial
    try:
        match result.status:
            case "finished":
                return _finished(plan, study, trial, result)
            case "pruned":
                study.tell(trial, state=TrialState.PRUNED)
                return "pruned"
            case "paused":
                trial.set_user_attr(PAUSED, True)
                trial.set_user_attr(OWNER, "")
                return "paused"
            case "interrupted":
                return _again(plan, study, claim, "interrupted", None)
            case "lost":
                return _again(plan, study, claim, cause(result), plan.limits.max_retries)
            case _:
                return _failed(study, trial, cause(result))
    except (UpdateFinishedTrialError, ValueError) as error:
        if study._storage.get_trial(trial._trial_id).state is TrialState.RUNNING:
            raise
        log.warning("trial %d: its result came too late: %s", claim.number, error)
        return "failed"


def _again(plan: Plan, study: optuna.Study, claim: Claim, why: str, most: int | None) -> str:
    each = next(c for c in configurations(tries(study)) if c.number == claim.number)
    with plan.storage.turn():
        queued = again(study, each, each.last, why, most)
    return "waiting" if queued else "failed"


def cause(result: Result) -> str:
    """Why a try failed: ``out of memory``, ``not finite``, or the first line of what went wrong."""
    text = "\n".join(result.problems)
    if "out of memory" in text.lower() or "MemoryError" in text or "can't allocate memory" in text:
        return f"out of memory: {result.problems[0]}"[:500]
    if "not finite" in text:
        return f"not finite: {result.problems[0]}"[:500]
    return (result.problems[0] if result.problems else result.status)[:500]


def final_row(report: Mapping[str, Any]) -> Mapping[str, Any]:
    """The last stage's row; the control is no stage."""
    rows = [row for row in report.get("stages") or () if row.get("name") != "control"]
    return rows[-1] if rows else {}


def constraints(report: Mapping[str, Any]) -> dict[str, float]:
    """How far each budget is exceeded; 0 or less keeps to it."""
    found = {}
    for name, entry in (report.get("budget") or {}).items():
        if isinstance(entry, Mapping) and entry.get("value") is not None:
            excess = float(entry["value"]) - float(entry["limit"])
            found[name] = min(excess, 0.0) if entry.get("met") else max(excess, 1e-12)
    return found


def _finished(plan: Plan, study: optuna.Study, trial: optuna.Trial, result: Result) -> str:
    row = final_row(result.report)
    values = {monitor.metric: value_of(row, monitor.metric) for monitor in plan.objectives}
    missing = [name for name, value in values.items() if value is None]
    if missing:
        return _failed(study, trial, f"the report has no value of {', '.join(missing)}")
    trial.set_user_attr(REPORT, {name: row[name] for name in FIGURES if row.get(name) is not None})
    for name, excess in constraints(result.report).items():
        trial.set_constraint(name, excess)
    study.tell(trial, [float(value) for value in values.values() if value is not None])
    return "complete"


def _failed(study: optuna.Study, trial: optuna.Trial, why: str) -> str:
    from optuna.trial import TrialState

    trial.set_user_attr(REASON, why)
    study.tell(trial, state=TrialState.FAIL)
    return "failed"
