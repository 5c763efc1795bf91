"""The picture of the learning-rate finder: the loss at every rate of the range test, and the rate that was taken."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from bigopt.report.theme import ACCENT, MUTED, SECOND, tidy

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TABLE = "lr_finder"
"""Name of the report's table that is drawn: ``lr``, ``loss``, ``smoothed`` and ``suggested`` of every step."""


def draw_rates(report: Mapping[str, Any]) -> Figure | None:
    """Loss and smoothed loss over the rate's logarithm; a ring marks the suggestion. None without a range test."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, NullFormatter

    rows = ((report.get("tables") or {}).get(TABLE) or {}).get("rows") or []
    if not rows:
        return None
    figure = Figure(figsize=(5.6, 3.2), layout="constrained")
    axes = figure.subplots()
    rates = [float(row["lr"]) for row in rows]
    axes.semilogx(rates, [float(row["loss"]) for row in rows], color=MUTED, linewidth=0.8, label="loss of the batch")
    axes.semilogx(rates, [float(row["smoothed"]) for row in rows], color=ACCENT, linewidth=1.8, label="smoothed")
    for row in rows:
        if row["suggested"]:
            place = (float(row["lr"]), float(row["smoothed"]))
            axes.plot(*place, "o", markersize=9, markerfacecolor="none", markeredgecolor=SECOND, markeredgewidth=2)
            axes.annotate(f"{place[0]:.2g}", place, xytext=(9, 7), textcoords="offset points", color=SECOND)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda rate, _place: f"{rate:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel("learning rate")
    axes.set_ylabel("training loss")
    axes.legend()
    tidy(axes)
    return figure
