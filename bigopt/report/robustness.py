"""What ``evaluate=robustness`` found, as a table and a picture."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import fmean
from typing import TYPE_CHECKING, Any

from bigopt.report import format as show
from bigopt.report import markup
from bigopt.report.markup import Safe, cell
from bigopt.report.reading import control_name
from bigopt.report.theme import ACCENT, CONTROL, INK, SERIES, tidy

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Report = Mapping[str, Any]
_FIGURES = {
    "clean": "clean",
    "mean": "mean over corruptions",
    "worst_class": "worst class",
    "calibration_error": "calibration error",
    "train_val_gap": "gap, training to validation",
    "epochs_to_target": "epochs to the target",
}


def results(report: Report) -> dict[str, Mapping[str, Any]]:
    """Results of :func:`bigopt.measure.robustness` by stage; empty unless they were asked for."""
    found = {row["name"]: row["values"].get("robustness") for row in report["stages"]}
    return {name: result for name, result in found.items() if result}


def robustness_table(report: Report) -> str:
    """One row per figure, one column per stage; a corruption's strengths stand under its mean."""
    stages = results(report)
    if not stages:
        return ""
    metric = next((str(result["metric"]) for result in stages.values() if result.get("metric")), "")
    rows = [
        [label, *(_figure(name, result.get(name), metric) for result in stages.values())]
        for name, label in _FIGURES.items()
        if any(result.get(name) is not None for result in stages.values())
    ]
    for name in dict.fromkeys(name for result in stages.values() for name in result.get("corruptions") or {}):
        rows.append([name, *(_corruption(result, name, metric) for result in stages.values())])
    caption = f"{metric} on the validation split; under a corruption's mean its values by strength."
    return markup.table(["", *stages], rows, caption=caption)


def _figure(name: str, value: Any, metric: str) -> Safe:
    if name == "worst_class" and isinstance(value, Mapping):
        return cell(show.metric_text("accuracy", value.get("accuracy")), str(value.get("class", "")))
    if name == "train_val_gap":
        return cell(show.drop_text(metric, value))
    if name in ("clean", "mean"):
        return cell(show.metric_text(metric, value))
    return cell(markup.value(value))


def _corruption(result: Mapping[str, Any], name: str, metric: str) -> Safe:
    strengths = (result.get("corruptions") or {}).get(name) or {}
    below = ", ".join(f"{strength}: {show.metric_text(metric, value)}" for strength, value in strengths.items())
    return cell(show.metric_text(metric, (result.get("means") or {}).get(name)), below)


def draw_robustness(report: Report) -> Figure | None:
    """The metric against the strength of the corruptions, averaged over them, one line per stage."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter

    stages = {name: result for name, result in results(report).items() if result.get("corruptions")}
    if not stages:
        return None
    metric = str(next(iter(stages.values())).get("metric", ""))
    figure = Figure(figsize=(7.2, 3.4), layout="constrained")
    axes = figure.subplots()
    control, colours = control_name(report), iter(SERIES * len(stages))
    strengths: set[int] = {0}
    for name, result in stages.items():
        points = {0: result.get("clean"), **_by_strength(result["corruptions"])}
        known = {strength: value for strength, value in sorted(points.items()) if value is not None}
        strengths |= set(known)
        is_control = name == control
        colour, style = (CONTROL, "--") if is_control else (next(colours, ACCENT), "-")
        label = show.shortened(name, 24)
        axes.plot(list(known), list(known.values()), marker="o", ms=4.5, lw=1.6, color=colour, ls=style, label=label)
    axes.set_xticks(sorted(strengths), ["clean" if strength == 0 else str(strength) for strength in sorted(strengths)])
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: show.metric_text(metric, value)))
    axes.set_xlabel("strength of the corruptions")
    axes.set_ylabel(f"{metric}, mean over corruptions")
    axes.legend(loc="best", labelcolor=INK)
    tidy(axes)
    return figure


def _by_strength(corruptions: Mapping[str, Mapping[str, Any]]) -> dict[int, float]:
    """The metric by strength, averaged over the corruptions that have it."""
    values: dict[int, list[float]] = {}
    for row in corruptions.values():
        for strength, value in row.items():
            if value is not None:
                values.setdefault(int(strength), []).append(value)
    return {strength: fmean(found) for strength, found in values.items()}
