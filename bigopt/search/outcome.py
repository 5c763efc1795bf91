"""What a sweep found: counts, the best configuration or the Pareto set, and whether budgets are kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from bigopt.search.configurations import REPORT, Configuration, reason
from bigopt.search.plan import Plan
from bigopt.vocabulary.objective import Monitor

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial


def completed(known: Sequence[Configuration]) -> list[Configuration]:
    """The configurations that were trained to their end."""
    return [each for each in known if each.state == "complete" and each.last.values]


def feasible(trial: FrozenTrial) -> bool:
    """Whether the trial keeps to every budget."""
    return all(value <= 0 for value in trial.constraints.values())


def violation(trial: FrozenTrial) -> float:
    """By how much the budgets are exceeded, in shares of their limits' unit; 0 for none."""
    return sum(max(0.0, value) for value in trial.constraints.values())


def rank(known: Sequence[Configuration], objectives: Sequence[Monitor]) -> list[Configuration]:
    """Completed configurations, best first: those that keep to the budgets, then by the objectives in their order."""

    def key(each: Configuration) -> tuple[Any, ...]:
        values = each.last.values
        worse = [-v if monitor.mode == "max" else v for monitor, v in zip(objectives, values, strict=True)]
        return (not feasible(each.last), violation(each.last), *worse, each.number)

    return sorted(completed(known), key=key)


def best(known: Sequence[Configuration], objectives: Sequence[Monitor]) -> Configuration | None:
    """The first of them; None where none completed."""
    return next(iter(rank(known, objectives)), None)


def pareto(known: Sequence[Configuration], objectives: Sequence[Monitor]) -> list[Configuration]:
    """Configurations that no other one beats in every objective, best in the first objective first; those that keep
    to the budgets only, if there are any.
    """
    ranked = rank(known, objectives)
    able = [each for each in ranked if feasible(each.last)] or ranked
    return [each for each in able if not any(_dominates(other, each, objectives) for other in able)]


def trial_record(each: Configuration, objectives: Sequence[Monitor]) -> dict[str, Any]:
    """One configuration as ``sweep.json`` shows it."""
    trial = each.last
    record: dict[str, Any] = {"number": each.number, "state": each.state, "params": dict(trial.params)}
    if each.state == "complete" and trial.values:
        record["values"] = {m.metric: v for m, v in zip(objectives, trial.values, strict=True)}
    if trial.constraints:
        record["exceeds"] = {name: max(0.0, value) for name, value in trial.constraints.items()}
    if trial.user_attrs.get(REPORT):
        record["report"] = trial.user_attrs[REPORT]
    if reason(trial) and each.state == "failed":
        record["reason"] = reason(trial)
    return record | {"folder": str(each.number), "tries": len(each.tries)}


def enough(plan: Plan, known: Sequence[Configuration]) -> str | None:
    """Why no further trial is worth it; None where one is."""
    monitor = plan.objectives[0]
    done = sorted(
        (each for each in completed(known) if feasible(each.last)),
        key=lambda each: each.last.datetime_complete.timestamp() if each.last.datetime_complete else 0.0,
    )
    top = best(done, plan.objectives)
    target = plan.limits.target
    if target is not None and top is not None and not monitor.better(target, top.last.values[0]):
        return f"the target {monitor.metric} {target:g} is reached"
    patience = plan.limits.patience
    if patience is not None and top is not None:
        ended = [each for each in known if each.state in ("complete", "pruned") and each.last.datetime_complete]
        at = top.last.datetime_complete
        since = sum(at is not None and e.last.datetime_complete > at for e in ended if e.last.datetime_complete)
        if since >= patience:
            return f"no better one in {since} trials"
    return None


def _dominates(a: Configuration, b: Configuration, objectives: Sequence[Monitor]) -> bool:
    better = [m.better(x, y) for m, x, y in zip(objectives, a.last.values, b.last.values, strict=True)]
    worse = [m.better(y, x) for m, x, y in zip(objectives, a.last.values, b.last.values, strict=True)]
    return any(better) and not any(worse)


def shown(values: Mapping[str, float]) -> str:
    """Values as a line."""
    return "  ".join(f"{name} {value:.6g}" for name, value in values.items())
