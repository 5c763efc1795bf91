"""The report as one self-contained page."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bigopt.report import format as show
from bigopt.report import markup, sections
from bigopt.report.markup import text
from bigopt.report.reading import (
    all_notes,
    control_line,
    final_row,
    first_objective,
    test_line,
)
from bigopt.report.robustness import robustness_table
from bigopt.report.stage import value_of
from bigopt.report.style import CSS

Report = Mapping[str, Any]
_COLOURS = {"finished": "good", "failed": "bad"}


def render_html(report: Report, folder: Path) -> Path:
    """Writes ``report.html``, which needs nothing from elsewhere, and its pictures as ``plots/*.png``.

    Args:
        report: a report as report.json holds it.
        folder: the run's folder.

    Returns:
        The page's path.

    Raises:
        OSError: something could not be written.
    """
    from bigopt.report.plots import draw_all, to_png, to_svg
    from bigopt.store import write_atomic

    folder = Path(folder)
    figures = draw_all(report)
    (folder / "plots").mkdir(parents=True, exist_ok=True)
    for name, figure in figures.items():
        write_atomic(folder / "plots" / f"{name}.png", to_png(figure))
    page = _page(report, folder, {name: to_svg(figure) for name, figure in figures.items()})
    path = folder / "report.html"
    write_atomic(path, page)
    return path


def draw_or_note(report: Report, folder: Path) -> list[str]:
    """Draws the page. A fault of the drawing must not cost hours of training: it is warned of, and noted.

    Returns:
        Notes for the report.

    Raises:
        OSError: the page could not be written.
    """
    try:
        render_html(report, folder)
    except OSError:
        raise
    except Exception as problem:
        line = f"report.html could not be drawn: {type(problem).__name__}: {problem}"
        warnings.warn(line, stacklevel=3)
        return [line]
    return []


def _page(report: Report, folder: Path, pictures: Mapping[str, str]) -> str:
    parts = [
        _head(report, folder),
        _cards(report),
        markup.lines(line for line in (control_line(report), test_line(report)) if line),
        _section("Stages", sections.stages(report)),
        _section("Pictures", sections.pictures(pictures)),
        _section("Metrics", sections.metrics(report)),
        _section("Robustness", robustness_table(report)),
        _section("Notes", markup.lines(all_notes(report)) if all_notes(report) else ""),
        _section("Tables", sections.tables(report)),
        _section("Details of the stages", sections.details(report)),
        _section("Environment", sections.facts(report)),
        _section("Configuration", markup.yaml_text(report["config"]) if report.get("config") else "", fold=True),
        _section("Files", sections.files(folder)),
    ]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">"
        f"<title>{text(_title(report))} – bigopt</title><style>{CSS}</style></head>"
        f"<body><main>{''.join(parts)}</main></body></html>\n"
    )


def _section(title: str, inner: str, fold: bool = False) -> str:
    if not inner:
        return ""
    return f"<h2>{text(title)}</h2>{markup.folded('show', inner) if fold else inner}"


def _title(report: Report) -> str:
    config = report.get("config") or {}
    model = (config.get("model") or {}).get("name") if isinstance(config.get("model"), Mapping) else None
    return " on ".join(str(name) for name in (model, report["data"]["name"]) if name)


def _head(report: Report, folder: Path) -> str:
    status = report["status"]
    steps = [row["plugin"] for row in report["stages"] if row["plugin"]]
    facts = [" → ".join(steps) or "no compression", f"seed {report['seed']}", folder.name]
    error = f'<div class="panel error">{text(report["error"])}</div>' if report.get("error") else ""
    badge = f'<span class="badge {_COLOURS.get(status, "warn")}">{text(status)}</span>'
    return f'<h1>{text(_title(report))}{badge}</h1><p class="sub">{text(" · ".join(facts))}</p>{error}'


def _cards(report: Report) -> str:
    row, metric = final_row(report), first_objective(report)
    if row is None:
        return ""
    cards = [(show.times(row["size_ratio"]), f"smaller: {show.size(row['bytes'])} ONNX", "")]
    for batch, ratio in row["speedup"].items():
        latency = show.milliseconds(row["latency_ms"].get(batch, {}).get("p50"))
        cards.append((show.times(ratio), f"faster at {batch.replace('_', ' ')}: {latency}", ""))
    interval = show.interval_text(metric, row["drop_interval"])
    unit = show.drop_unit(metric)
    value = show.metric_text(metric, value_of(row, metric))
    under = f"drop of {metric}, 95% {interval}; now {value}" if interval else f"drop of {metric}; now {value}"
    cards.append((f"{show.drop_text(metric, row['drop'], unit=False)} {unit}".strip(), under, ""))
    met = report["budget"]["met"]
    if met is not None:
        limits = "; ".join(_limit(name, part, metric) for name, part in report["budget"].items() if name != "met")
        cards.append(("met" if met else "missed", f"budget: {limits}", "good" if met else "bad"))
    inner = (
        f'<div class="card"><b class="{c}">{text(figure)}</b><span>{text(u)}</span></div>' for figure, u, c in cards
    )
    return f'<div class="cards">{"".join(inner)}</div>'


def _limit(name: str, part: Mapping[str, Any], metric: str) -> str:
    forms = {"max_bytes": show.size, "max_macs": show.count, "max_latency_ms": show.milliseconds}
    form = forms.get(name, lambda drop: show.drop_text(metric, drop))
    return f"{name} {form(part['value'])} of {form(part['limit'])}"
