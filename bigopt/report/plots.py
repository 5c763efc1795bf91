"""The report's pictures, drawn with matplotlib off screen."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from bigopt.report import format as show
from bigopt.report.curves import draw_curves
from bigopt.report.rates import draw_rates
from bigopt.report.reading import control_name, drop_mode, first_objective
from bigopt.report.robustness import draw_robustness
from bigopt.report.stage import value_of
from bigopt.report.theme import ACCENT, CONTROL, INK, LINE, MUTED, RC, tidy

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Report = Mapping[str, Any]


def draw_all(report: Report) -> dict[str, Figure]:
    """Every picture that the report has the figures for, by the name of its file."""
    import matplotlib

    drawers: dict[str, Callable[[Report], Figure | None]] = {
        "tradeoff": draw_tradeoff,
        "stages": draw_stages,
        "curves": draw_curves,
        "robustness": draw_robustness,
        "lr_finder": draw_rates,
    }
    with matplotlib.rc_context(RC):
        figures = {name: draw(report) for name, draw in drawers.items()}
    return {name: figure for name, figure in figures.items() if figure is not None}


def to_png(figure: Figure) -> bytes:
    """The picture on white, 150 dots per inch."""
    return _saved(figure, "png", dpi=150, facecolor="white")


def to_svg(figure: Figure) -> str:
    """The picture as an ``<svg>`` element that takes its colours from the page around it (light or dark)."""
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    text = _saved(figure, "svg", transparent=True, metadata=nothing).decode()
    text = text[text.index("<svg") :]
    for colour, variable in ((INK, "--ink"), (MUTED, "--muted"), (LINE, "--line")):
        text = text.replace(colour, f"var({variable})")
    return text


def _saved(figure: Figure, kind: str, **options: Any) -> bytes:
    import matplotlib

    file = io.BytesIO()
    with matplotlib.rc_context(RC):
        figure.savefig(file, format=kind, **options)
    return file.getvalue()


def draw_tradeoff(report: Report) -> Figure | None:
    """The first objective against the size of the file, with the paired interval of the drop around each step."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

    metric = first_objective(report)
    rows = [row for row in report["stages"] if row["bytes"] and value_of(row, metric) is not None]
    if not rows:
        return None
    figure = Figure(figsize=(7.2, 3.8), layout="constrained")
    axes = figure.subplots()
    control = control_name(report)
    steps = [row for row in rows if row["name"] != control]
    values = {row["name"]: value_of(row, metric) or 0.0 for row in rows}
    axes.plot([row["bytes"] for row in steps], [values[row["name"]] for row in steps], color=ACCENT, alpha=0.45, lw=1.5)
    for row in rows:
        is_control = row["name"] == control
        colour = CONTROL if is_control else ACCENT
        axes.errorbar(
            [row["bytes"]],
            [values[row["name"]]],
            yerr=_ends(row, drop_mode(report)),
            fmt="D" if is_control else "o",
            color=colour,
            markerfacecolor="none" if is_control else colour,
            capsize=3,
            ms=7,
            lw=1.2,
        )
    axes.set_xscale("log")
    sizes = [row["bytes"] for row in rows]
    axes.set_xlim(min(sizes) / 1.7, max(sizes) * 1.7)
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if max(sizes) < 60 * min(sizes) else (1,)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: show.size(value)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_locator(MaxNLocator(6))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: show.metric_text(metric, value)))
    axes.margins(y=0.22)
    axes.set_xlabel("ONNX file")
    axes.set_ylabel(metric)
    tidy(axes)
    figure.draw_without_rendering()  # labels are placed on final positions
    _label_points(axes, {row["name"]: (row["bytes"], values[row["name"]]) for row in rows})
    return figure


def _ends(row: Mapping[str, Any], mode: str) -> list[list[float]] | None:
    """Lengths of the error bar below and above the point, from the interval of the drop."""
    if row["drop"] is None or row["drop_interval"] is None or row["drop_interval"] == [0.0, 0.0]:
        return None
    low, high = row["drop_interval"]
    better, worse = max(0.0, row["drop"] - low), max(0.0, high - row["drop"])
    return [[worse], [better]] if mode == "max" else [[better], [worse]]


def _label_points(axes: Axes, points: Mapping[str, tuple[float, float]]) -> None:
    """Names beside the points, each at the first of a few places where it lies on no other name and no point."""
    places = ((8, 7, "left"), (-8, 7, "right"), (8, -15, "left"), (-8, -15, "right"), (8, 20, "left"), (8, -28, "left"))
    frame = axes.get_window_extent()
    scale = axes.get_figure().dpi / 72  # type: ignore[union-attr]
    taken: list[tuple[float, float, float, float]] = []
    for x, y in points.values():
        px, py = axes.transData.transform((x, y))
        taken.append((px - 4, py - 4, px + 4, py + 4))
    for name, (x, y) in points.items():
        px, py = axes.transData.transform((x, y))
        text, width = show.shortened(name, 24), 5.6 * scale * min(len(name), 24)
        boxes = []
        for dx, dy, side in places:
            left = px + dx * scale - (width if side == "right" else 0)
            boxes.append((left, py + dy * scale, left + width, py + (dy + 10) * scale))
        free = [
            index
            for index, box in enumerate(boxes)
            if box[0] >= frame.x0 and box[2] <= frame.x1 and not any(_overlap(box, other) for other in taken)
        ]
        best = free[0] if free else 0
        taken.append(boxes[best])
        dx, dy, side = places[best]
        axes.annotate(text, (x, y), (dx, dy), textcoords="offset points", ha=side, color=INK, fontsize=9)


def _overlap(a: tuple[float, float, float, float], b: tuple[float, float, float, float]) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def draw_stages(report: Report) -> Figure | None:
    """Bars per stage: size, latency at each batch size, the first objective."""
    from matplotlib.figure import Figure

    rows, metric = report["stages"], first_objective(report)
    panels: list[tuple[str, list[float | None], Callable[[float | None], str]]] = [
        ("ONNX file", [row["bytes"] for row in rows], show.size)
    ]
    for batch in dict.fromkeys(batch for row in rows for batch in row["latency_ms"]):
        latencies = [row["latency_ms"].get(batch, {}).get("p50") for row in rows]
        panels.append((f"latency, {batch.replace('_', ' ')}", latencies, show.milliseconds))
    panels.append((metric, [value_of(row, metric) for row in rows], lambda value: show.metric_text(metric, value)))
    panels = [panel for panel in panels if any(value is not None for value in panel[1])]
    if not rows or not panels:
        return None
    figure = Figure(figsize=(10.2, 1.0 + 0.42 * len(rows)), layout="constrained")
    all_axes = figure.subplots(1, len(panels), squeeze=False)[0]
    control = control_name(report)
    colours = [CONTROL if row["name"] == control else ACCENT for row in rows]
    for index, (axes, (title, values, text)) in enumerate(zip(all_axes, panels, strict=True)):
        _bars(axes, title, values, text, colours)
        axes.set_yticks(range(len(rows)), [show.shortened(row["name"], 22) for row in rows] if index == 0 else [])
    return figure


def _bars(
    axes: Axes,
    title: str,
    values: list[float | None],
    text: Callable[[float | None], str],
    colours: list[str],
) -> None:
    """One panel; the figure stands at the end of its bar."""
    known = [value or 0.0 for value in values]
    top = max(max(known), 0.0) or 1.0
    axes.barh(range(len(values)), known, color=colours, height=0.62)
    for index, value in enumerate(values):
        axes.text(max(known[index], 0.0) + 0.03 * top, index, text(value), va="center", fontsize=8.5, color=INK)
    axes.set_xlim(min(0.0, *known, 0.0), 1.5 * top)
    axes.set_title(title, fontsize=9.5, loc="left", color=INK)
    axes.invert_yaxis()
    axes.set_xticks([])
    axes.tick_params(length=0)
    for side in ("top", "right", "bottom"):
        axes.spines[side].set_visible(False)
