"""What a sweep leaves in its folder: sweep.json, trials.csv, best.yaml."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bigopt.search.configurations import REPORT, Configuration, counts, reason
from bigopt.search.outcome import best, pareto, trial_record
from bigopt.search.plan import Plan
from bigopt.store import read_json, redact, write_atomic, write_json
from bigopt.vocabulary.errors import RequestError

FILE = "sweep.json"
TABLE = "trials.csv"
BEST = "best.yaml"
EXPERIMENT = f"experiment/{BEST}"
"""Where ``bigopt --config-dir <folder> experiment=best`` finds it."""

_LEFT_OUT = ("tuner", "tracking", "cache", "resume")


def refuse_other(plan: Plan) -> None:
    """Refuses a folder that another study left its files in: trials of both would share their folders.

    Raises:
        RequestError: it is another study's.
    """
    from bigopt.search.study import differences

    file = plan.folder / FILE
    if not file.is_file():
        return
    before = read_json(file)
    if not isinstance(before, Mapping) or before.get("study") in (None, plan.study):
        return
    changes = differences(before.get("space") or {}, plan.space.described())
    said = f"; {'; '.join(changes)}" if changes else ""
    raise RequestError(
        f"hydra.sweep.dir: {plan.folder} holds study {before['study']}, not {plan.study}{said}; choose another one"
    )


def write(
    plan: Plan, known: Sequence[Configuration], status: str, seconds: float, more: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Writes ``sweep.json`` and ``trials.csv``; returns the former's content."""
    content = summary(plan, known, status, seconds) | dict(more or {})
    write_json(plan.folder / FILE, content)
    write_atomic(plan.folder / TABLE, table(plan, known))
    return content


def summary(plan: Plan, known: Sequence[Configuration], status: str, seconds: float) -> dict[str, Any]:
    """The content of ``sweep.json``."""
    top = best(known, plan.objectives)
    found: dict[str, Any] = {
        "schema": 1,
        "study": plan.study,
        "storage": redact(plan.storage.shown),
        "status": status,
        "objective": {monitor.metric: monitor.mode for monitor in plan.objectives},
        "tuner": plan.fixed.get("tuner"),
        "space": plan.space.described(),
        "n_trials": plan.limits.n_trials,
        "counts": counts(known),
        "best": trial_record(top, plan.objectives) if top is not None else None,
        "seconds": round(seconds, 3),
    }
    if len(plan.objectives) > 1:
        found["pareto"] = [trial_record(each, plan.objectives) for each in pareto(known, plan.objectives)]
    failed = [{"number": each.number, "reason": reason(each.last)} for each in known if each.state == "failed"]
    return found | ({"failures": failed} if failed else {})


def table(plan: Plan, known: Sequence[Configuration]) -> str:
    """The trials as CSV, one row each."""
    metrics = [monitor.metric for monitor in plan.objectives]
    names = list(dict.fromkeys([*plan.space.distributions, *(name for each in known for name in each.last.params)]))
    figures = list(dict.fromkeys(name for each in known for name in _flat(each.last.user_attrs.get(REPORT, {}))))
    figures = [name for name in figures if name not in metrics]
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    last = ("exceeds", "tries", "wall_seconds", "reason")
    writer.writerow(["number", "state", *metrics, "epochs", *names, *figures, *last])
    for each in known:
        trial = each.last
        values = list(trial.values or ()) if each.state in ("complete", "pruned") else []
        took = (trial.duration.total_seconds(),) if trial.duration is not None else ("",)
        report = _flat(trial.user_attrs.get(REPORT, {}))
        writer.writerow(
            [
                each.number,
                each.state,
                *(values + [""] * len(metrics))[: len(metrics)],
                trial.last_step if trial.last_step is not None else "",
                *(trial.params.get(name, "") for name in names),
                *(report.get(name, "") for name in figures),
                sum(max(0.0, value) for value in trial.constraints.values()) if trial.constraints else "",
                len(each.tries),
                *took,
                reason(trial) if each.state == "failed" else "",
            ]
        )
    return out.getvalue()


def write_best(folder: Path, head: str, choices: Mapping[str, Any], resolved: Mapping[str, Any]) -> Path:
    """Writes the best configuration as an experiment that runs it again.

    Args:
        folder: the sweep's.
        head: what it is, one line.
        choices: the choice in each config group; a list for groups that hold steps.
        resolved: the checked configuration as plain values.

    Returns:
        the path of ``best.yaml``.
    """
    import yaml

    defaults: list[Any] = [
        {f"override /{group}": list(choice) if isinstance(choice, list | tuple) else choice}
        for group, choice in choices.items()
        if group not in _LEFT_OUT and choice not in ([], ())  # no steps are the root configuration's own choice
    ]
    values = {key: value for key, value in resolved.items() if key not in _LEFT_OUT and value not in ({}, None)}
    text = (
        f"# @package _global_\n# {head}\n# Run it again: bigopt --config-dir {folder} experiment=best\n"
        + yaml.safe_dump({"defaults": [*defaults, {"override /tuner": "none"}, "_self_"]}, sort_keys=False)
        + yaml.safe_dump(values, sort_keys=False)
    )
    write_atomic(folder / EXPERIMENT, text)
    return write_atomic(folder / BEST, text)


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in values.items():
        found |= _flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {f"{prefix}{name}": value}
    return found
