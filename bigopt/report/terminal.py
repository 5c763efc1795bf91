"""The report in a terminal."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bigopt.report import format as show
from bigopt.report.reading import all_notes, control_line, control_name, first_objective, headline, missed, test_line
from bigopt.report.stage import value_of

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

_WIDE = 108  # columns from which each figure and its ratio fit on one line
_STYLES = {"finished": "green", "running": "yellow", "pruned": "yellow", "interrupted": "yellow", "failed": "bold red"}


def render_table(report: Mapping[str, Any], width: int | None = None, plain: bool | None = None) -> Table | str:
    """The stage table.

    Args:
        report: a report as report.json holds it.
        width: columns; None asks the terminal. Below 108 a figure's ratio stands under it; 80 are enough.
        plain: text without colours; None means whenever standard output is not a terminal.

    Returns:
        A rich table, or text when plain.
    """
    width = width or shutil.get_terminal_size().columns
    table = _table(report, width >= _WIDE)
    return _text(table, width) if _is_plain(plain) else table


def render_summary(
    report: Mapping[str, Any],
    folder: Path,
    tracking_uri: str | None = None,
    width: int | None = None,
    plain: bool | None = None,
) -> RenderableType:
    """The closing screen: the table, what it means, where the files lie and how to see more.

    Args:
        report: a report as report.json holds it.
        folder: the run's folder.
        tracking_uri: where the run was tracked; None for nowhere.
        width: columns; None asks the terminal.
        plain: text without colours; None means whenever standard output is not a terminal.

    Returns:
        Something that rich prints, or text when plain.
    """
    from rich.console import Group
    from rich.text import Text

    width = width or shutil.get_terminal_size().columns
    lines = [_headline(report), *_verdict(report), *_notes(report), Text(), *_where(report, Path(folder), tracking_uri)]
    group = Group(_table(report, width >= _WIDE), Text(), *lines)
    return _text(group, width) if _is_plain(plain) else group


def _is_plain(plain: bool | None) -> bool:
    return not sys.stdout.isatty() if plain is None else plain


def _text(renderable: Any, width: int) -> str:
    from rich.console import Console

    console = Console(width=width, color_system=None, force_terminal=False, legacy_windows=False)
    with console.capture() as capture:
        console.print(renderable)
    return "\n".join(line.rstrip() for line in capture.get().splitlines())


def _table(report: Mapping[str, Any], wide: bool) -> Table:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    metric = first_objective(report)
    batches = list(dict.fromkeys(batch for row in report["stages"] for batch in row["latency_ms"]))
    unit = show.drop_unit(metric)
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    table.add_column("stage", overflow="fold", min_width=8)
    gap = " " if wide else "\n"
    heads = [metric.removeprefix("val/"), f"drop,{gap}{unit}" if unit else "drop", "params", "MACs", "size"]
    for head in heads + [f"{batch.replace('_', gap)}, ms" for batch in batches]:
        table.add_column(head, justify="right", no_wrap=True)
    control = control_name(report)
    for row in report["stages"]:
        is_control = row["name"] == control
        name = Text(f"({row['name']})" if is_control else row["name"], style="italic" if is_control else "bold")
        table.add_row(name, *_cells(row, metric, batches, gap), style="dim" if is_control else "")
    return table


def _cells(row: Mapping[str, Any], metric: str, batches: list[str], gap: str) -> list[str]:
    """The figures of a row; a figure's interval or ratio follows after ``gap``. Square brackets are no markup here."""
    from rich.markup import escape

    first = row["drop_interval"] == [0.0, 0.0] and row["drop"] == 0.0
    drop = show.drop_text(metric, row["drop"], None, unit=False)
    interval = "" if first else show.interval_text(metric, row["drop_interval"])
    latencies = [
        _join(show.significant(row["latency_ms"].get(batch, {}).get("p50")), show.times(row["speedup"].get(batch)), gap)
        for batch in batches
    ]
    cells = [
        show.metric_text(metric, value_of(row, metric)),
        _join(drop, interval, gap),
        show.count(row["parameters"]),
        show.count(row["macs"]),
        _join(show.size(row["bytes"]), show.times(row["size_ratio"]), gap),
        *latencies,
    ]
    return [escape(cell) for cell in cells]


def _join(figure: str, ratio: str, gap: str) -> str:
    return figure if ratio in ("", show.NONE) else f"{figure}{gap}{ratio}"


def _headline(report: Mapping[str, Any]) -> Any:
    from rich.text import Text

    status = report["status"]
    text = Text(f"{status}: ", style=_STYLES.get(status, "")).append(headline(report), style="default")
    return text.append(f"\n{report['error']}", style="red") if report.get("error") else text


def _verdict(report: Mapping[str, Any]) -> list[Any]:
    from rich.text import Text

    lines = [Text(line) for line in (control_line(report), test_line(report)) if line]
    if report["budget"]["met"] is not None:
        names = missed(report)
        lines.append(Text(f"budget missed: {', '.join(names)}", "red") if names else Text("budget met", "green"))
    return lines


def _notes(report: Mapping[str, Any]) -> list[Any]:
    from rich.text import Text

    return [Text(f"note: {note}", style="dim") for note in all_notes(report)]


def _where(report: Mapping[str, Any], folder: Path, tracking_uri: str | None) -> list[Any]:
    from rich.text import Text

    kinds = ("report.html", "report.json", "report.csv", "model.onnx", "model.pt2", "model.safetensors")
    there = [name for name in kinds if (folder / name).exists()]
    lines = [Text(f"files: {folder}", style="bold"), Text(f"       {', '.join(there)}")]
    if tracking_uri is not None:
        lines.append(Text(f"MLflow UI: bigopt ui   (runs are in {tracking_uri})"))
    return lines
