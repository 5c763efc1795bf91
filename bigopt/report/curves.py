"""Learning curves of every fit of a run, one after the other on one axis of epochs."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from bigopt.report import format as show
from bigopt.report.reading import first_objective
from bigopt.report.theme import ACCENT, INK, LINE, MUTED, SECOND, THIRD, tidy

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Fit = tuple[str, int, Mapping[str, Any]]  # its name, the epochs before it, its record


def draw_curves(report: Mapping[str, Any]) -> Figure | None:
    """Loss (train and validation), the first objective and the learning rate; a rule stands between two fits."""
    from matplotlib.figure import Figure

    fits = list(all_fits(report))
    if not fits:
        return None
    metric = first_objective(report)
    panels: list[tuple[str, list[tuple[str, str, str]]]] = [
        ("loss", [("train/loss", "train", SECOND), ("val/loss", "validation", ACCENT)]),
        (metric, [(metric.replace("val/", "train/", 1), "train", SECOND), (metric, "validation", ACCENT)]),
        ("learning rate", [("lr", "", THIRD)]),
    ]
    recorded = {key for _, _, fit in fits for epoch in fit["epochs"] for key in epoch}
    if metric in ("val/loss", "train/loss"):
        del panels[1]
    panels = [(title, [line for line in lines if line[0] in recorded]) for title, lines in panels]
    panels = [(title, lines) for title, lines in panels if lines]
    if not panels:
        return None
    figure = Figure(figsize=(10.2, 0.5 + 1.75 * len(panels)), layout="constrained")
    all_axes = figure.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0]
    for axes, (title, lines) in zip(all_axes, panels, strict=True):
        _panel(axes, title, lines, fits)
    _names(all_axes[0], fits)
    all_axes[-1].set_xlim(0.5, fits[-1][1] + len(fits[-1][2]["epochs"]) + 0.5)
    all_axes[-1].set_xlabel("epoch")
    return figure


def all_fits(report: Mapping[str, Any]) -> Iterator[Fit]:
    """Every fit that recorded epochs, in order, with the number of epochs before it."""
    before = 0
    for row in report["stages"]:
        for fit in row["history"]:
            if fit.get("epochs"):
                yield str(fit.get("name") or row["name"]), before, fit
                before += len(fit["epochs"])


def _panel(axes: Axes, title: str, lines: Sequence[tuple[str, str, str]], fits: Sequence[Fit]) -> None:
    from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter

    drawn: list[float] = []
    for key, label, colour in lines:
        for index, (_, before, fit) in enumerate(fits):
            values = [_number(epoch.get(key)) for epoch in fit["epochs"]]
            drawn += [value for value in values if not math.isnan(value)]
            epochs = range(before + 1, before + 1 + len(values))
            marker = "o" if len(values) < 3 else None
            axes.plot(epochs, values, color=colour, lw=1.5, marker=marker, ms=3.5, label=None if index else label)
            best = int(fit.get("best_epoch") or 0)
            if label == "validation" and 0 < best <= len(values):
                axes.plot([before + best], [values[best - 1]], "o", color=colour, ms=5, mfc="none")
    for _, before, _ in fits[1:]:
        axes.axvline(before + 0.5, color=MUTED, lw=0.8, ls=(0, (3, 3)))
    positive = [value for value in drawn if value > 0]
    if title in ("loss", "learning rate") and len(positive) == len(drawn) and max(positive) > 30 * min(positive):
        axes.set_yscale("log")  # its own labels are formulas, and formulas are off
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.yaxis.set_minor_formatter(NullFormatter())
    elif title not in ("loss", "learning rate"):
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: show.metric_text(title, value)))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_ylabel(title)
    if len(lines) > 1:
        axes.legend(loc="best", labelcolor=INK, facecolor=LINE)
    tidy(axes)


def _names(axes: Axes, fits: Sequence[Fit]) -> None:
    """Names of the fits above the first panel; of many fits only as many as there is room for."""
    total = sum(len(fit["epochs"]) for _, _, fit in fits)
    free_from = -math.inf
    for name, before, fit in fits:
        room = 110 * len(fit["epochs"]) / total  # letters that fit on the whole axis, by this fit's share
        text = show.shortened(name, max(6, int(room)))
        start = (before + 0.5) / total
        if start < free_from:
            continue
        axes.annotate(
            text,
            (before + 0.5, 1.0),
            (3, 4),
            xycoords=axes.get_xaxis_transform(),
            textcoords="offset points",
            fontsize=8,
            color=MUTED,
        )
        free_from = start + (len(text) + 1) / 110


def _number(value: Any) -> float:
    return float(value) if isinstance(value, int | float) else math.nan
