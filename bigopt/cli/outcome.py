"""What a job came to, and the exit code that follows, computed after Hydra has returned."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

DONE, FAILED, WRONG, OVER_BUDGET = 0, 1, 2, 3


@dataclass(frozen=True)
class Outcome:
    """What one job came to; plain enough to come back from another process.

    Attributes:
        code: exit code of the job alone.
        status: ``finished``, ``failed``, ``refused``, ``interrupted`` or ``pruned``.
        report: the report, empty where none was made.
        problems: what went wrong, one line each.
    """

    code: int
    status: str
    report: dict[str, Any] = field(default_factory=dict)
    problems: tuple[str, ...] = ()

    @classmethod
    def of(cls, report: Mapping[str, Any]) -> Outcome:
        """The outcome that a report stands for."""
        status = str(report.get("status", "finished"))
        if status != "finished":
            return cls(DONE if status == "pruned" else FAILED, status, dict(report))
        met = (report.get("budget") or {}).get("met")
        return cls(OVER_BUDGET if met is False else DONE, status, dict(report))


def outcomes(returned: Any) -> Iterator[Outcome]:
    """The outcomes inside what a run or a sweeper returned: job returns, in lists of any depth."""
    if isinstance(returned, Outcome):
        yield returned
    elif isinstance(returned, list | tuple):
        for item in returned:
            yield from outcomes(item)
    elif hasattr(returned, "_return_value"):  # `return_value` raises what a job raised
        yield from outcomes(returned._return_value)


def exit_code(found: Sequence[Outcome]) -> int:
    """The code of a whole sweep, or of the single run.

    A sweep is done when one job completed; it gives 3 when its best misses the budget, the code of an interruption
    when it was stopped, and without any completed job 2 where every request was wrong, else 1.
    """
    if len(found) == 1:
        return found[0].code
    stopped = [outcome.code for outcome in found if outcome.code > 128]
    if stopped:
        return stopped[0]
    completed = [outcome for outcome in found if outcome.status == "finished"]
    if not completed:
        return WRONG if found and all(outcome.code == WRONG for outcome in found) else FAILED
    return best(completed).code


def best(completed: Sequence[Outcome]) -> Outcome:
    """The outcome whose first objective is best at its last stage; the first one where none can be compared."""
    objective: dict[str, str] = next(
        (outcome.report["objective"] for outcome in completed if outcome.report.get("objective")), {}
    )
    for metric, mode in list(objective.items())[:1]:
        valued = [(value, outcome) for outcome in completed if (value := _value(outcome.report, metric)) is not None]
        if valued:
            pick = max if mode == "max" else min
            return pick(valued, key=lambda pair: pair[0])[1]
    return completed[0]


def _value(report: Mapping[str, Any], name: str) -> float | None:
    """A report value of the final model."""
    from bigopt.report import value_of

    stages = [stage for stage in report.get("stages") or [] if stage.get("name") != "control"]
    return value_of(stages[-1], name) if stages else None
