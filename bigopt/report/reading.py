"""What a report says, in words; shared by the terminal and the page."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bigopt.report import format as show


def first_objective(report: Mapping[str, Any]) -> str:
    """The metric that drops are measured by."""
    return report.get("drop_metric") or next(iter(report["objective"]), "val/loss")


def drop_mode(report: Mapping[str, Any]) -> str:
    """Whether more or less of that metric is better: ``max`` or ``min``."""
    return str(report.get("drop_mode") or report["objective"][first_objective(report)])


def control_name(report: Mapping[str, Any]) -> str | None:
    """Name of the control's row; None without one."""
    control = report.get("control")
    return control["name"] if control else None


def final_row(report: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The last step's row; the control is no step."""
    control = control_name(report)
    rows = [row for row in report["stages"] if row["name"] != control]
    return rows[-1] if rows else None


def headline(report: Mapping[str, Any]) -> str:
    """One line: how much smaller and faster, at what drop."""
    row, metric = final_row(report), first_objective(report)
    if row is None:
        return "no stage was completed"
    parts = [f"{show.times(row['size_ratio'])} smaller"] if row["size_ratio"] is not None else []
    for batch, ratio in row["speedup"].items():
        parts.append(f"{show.times(ratio)} faster at {batch.replace('_', ' ')}")
    parts.append(f"drop of {metric} {show.drop_text(metric, row['drop'], row['drop_interval'])}")
    return ", ".join(parts)


def control_line(report: Mapping[str, Any]) -> str | None:
    """What the control says about the last step's drop; None without a control."""
    control, row = report.get("control"), final_row(report)
    if not control or row is None:
        return None
    metric = first_objective(report)
    drop = control["drops"].get(row["name"])
    line = f"better of baseline and control: {control['better']}"
    return f"{line}; drop against it {show.drop_text(metric, drop['drop'], drop['interval'])}" if drop else line


def test_line(report: Mapping[str, Any]) -> str | None:
    """What the test split says, and how often it was read; None inside a sweep's trials."""
    test = report.get("test")
    metric = next(iter(report["objective"]), "val/loss").replace("val/", "test/", 1)
    if not test:
        return None
    reads = f"test split read {test['test_reads']}×"
    if metric not in test["final"]:
        return reads
    values = [show.metric_text(metric, test[name].get(metric)) for name in ("baseline", "final")]
    drop = show.drop_text(metric, test["drop"], test["drop_interval"])
    return f"{metric}: {values[0]} → {values[1]}, drop {drop} ({reads})"


def missed(report: Mapping[str, Any]) -> list[str]:
    """Names of the limits that the final model does not keep to."""
    return [name for name, part in report["budget"].items() if name != "met" and part["met"] is False]


def all_notes(report: Mapping[str, Any]) -> list[str]:
    """Every line for the reader, once: about the data, the run, and the stages by name."""
    notes = [*report["data"]["notes"], *report["notes"]]
    notes += [f"{row['name']}: {note}" for row in report["stages"] for note in row["notes"]]
    return list(dict.fromkeys(notes))
