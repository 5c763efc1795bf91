"""The report as one self-contained page."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from bigopt.report import format as show
from bigopt.report import markup
from bigopt.report.markup import Safe, cell, text
from bigopt.report.reading import (
    all_notes,
    control_line,
    control_name,
    final_row,
    first_objective,
    test_line,
)
from bigopt.report.stage import value_of
from bigopt.report.style import CSS

Report = Mapping[str, Any]
_COLOURS = {"finished": "good", "failed": "bad"}
_CAPTIONS = {
    "tradeoff": "The first objective against the size of the file, with the paired interval of the drop. "
    "The control is the uncompressed model with the same extra training.",
    "stages": "Per stage, on the file that would be deployed; latency is the median.",
    "curves": "Every fit in turn; a ring marks the epoch that was kept.",
}


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
    sections = [
        _head(report, folder),
        _cards(report),
        markup.lines(line for line in (control_line(report), test_line(report)) if line),
        _section("Stages", _stages(report)),
        _section("Pictures", _pictures(pictures)),
        _section("Metrics", _metrics(report)),
        _section("Robustness", _robustness(report)),
        _section("Notes", markup.lines(all_notes(report)) if all_notes(report) else ""),
        _section("Tables", "".join(markup.records(part["rows"], part["file"]) for part in _tables(report))),
        _section("Details of the stages", _details(report)),
        _section("Environment", markup.facts(_facts(report))),
        _section("Configuration", markup.yaml_text(report["config"]) if report.get("config") else "", fold=True),
        _section("Files", _files(folder)),
    ]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">"
        f"<title>{text(_title(report))} – bigopt</title><style>{CSS}</style></head>"
        f"<body><main>{''.join(sections)}</main></body></html>\n"
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
        limits = "; ".join(_limit(name, part) for name, part in report["budget"].items() if name != "met")
        cards.append(("met" if met else "missed", f"budget: {limits}", "good" if met else "bad"))
    inner = (
        f'<div class="card"><b class="{c}">{text(figure)}</b><span>{text(u)}</span></div>' for figure, u, c in cards
    )
    return f'<div class="cards">{"".join(inner)}</div>'


def _limit(name: str, part: Mapping[str, Any]) -> str:
    form = {"max_bytes": show.size, "max_macs": show.count, "max_latency_ms": show.milliseconds}.get(
        name, lambda number: show.significant(number)
    )
    return f"{name} {form(part['value'])} of {form(part['limit'])}"


def _stages(report: Report) -> str:
    metric, control, last = first_objective(report), control_name(report), final_row(report)
    batches = list(dict.fromkeys(batch for row in report["stages"] for batch in row["latency_ms"]))
    heads = ["stage", metric, "drop", "parameters", "MACs", "BOPs", "ONNX", "zipped"]
    heads += [batch.replace("_", " ") for batch in batches] + ["epochs", "time"]
    rows, classes = [], []
    for row in report["stages"]:
        latencies = [(row["latency_ms"].get(batch) or {}, row["speedup"].get(batch)) for batch in batches]
        rows.append(
            [
                cell(row["name"], row["plugin"] if row["plugin"] not in (None, row["name"]) else ""),
                show.metric_text(metric, value_of(row, metric)),
                cell(show.drop_text(metric, row["drop"]), show.interval_text(metric, row["drop_interval"])),
                cell(show.count(row["parameters"]), _nonzero(row)),
                show.count(row["macs"]),
                show.count(row["bops"]),
                cell(show.size(row["bytes"]), _ratio(row["size_ratio"])),
                show.size(row["bytes_zip"]),
                *(cell(show.milliseconds(found.get("p50")), _ratio(ratio)) for found, ratio in latencies),
                row["recovery_epochs"],
                show.seconds(row["seconds"]),
            ]
        )
        classes.append("control" if row["name"] == control else "final" if row is last and len(rows) > 1 else "")
    caption = (
        f"Drop: how much worse than the baseline on {report['n_val']} validation samples, with its 95% paired "
        "interval; negative is better. Ratios are against the baseline; latency is ONNX Runtime's median."
    )
    return markup.table(heads, rows, classes, caption) if rows else ""


def _ratio(ratio: float | None) -> str:
    return "" if ratio is None else show.times(ratio)


def _nonzero(row: Mapping[str, Any]) -> str:
    full, some = row["parameters"], row["nonzero"]
    return "" if full in (None, some) or some is None else f"{show.count(some)} not zero"


def _pictures(pictures: Mapping[str, str]) -> str:
    return "".join(
        f'<div class="panel{" narrow" if name == "tradeoff" else ""}">{svg}'
        f'<p class="hint">{text(_CAPTIONS.get(name, ""))}</p></div>'
        for name, svg in pictures.items()
    )


def _metrics(report: Report) -> str:
    names = list(dict.fromkeys(name for row in report["stages"] for name in row["metrics"]))
    if not names:
        return ""
    rows = [
        [row["name"], *(show.metric_text(name, row["metrics"].get(name)) for name in names)] for row in report["stages"]
    ]
    return markup.table(["stage", *names], rows)


def _robustness(report: Report) -> str:
    """One row per figure, one column per stage; only where ``evaluate=robustness`` was asked for."""
    stages = {row["name"]: dict(markup.dotted(row["values"].get("robustness") or {})) for row in report["stages"]}
    stages = {name: figures for name, figures in stages.items() if figures}
    if not stages:
        return ""
    names = list(dict.fromkeys(name for figures in stages.values() for name in figures))
    rows = [[name, *(markup.value(figures.get(name)) for figures in stages.values())] for name in names]
    return markup.table(["", *stages], rows)


def _tables(report: Report) -> list[Mapping[str, Any]]:
    return [part for part in (report.get("tables") or {}).values() if part["rows"]]


def _details(report: Report) -> str:
    parts = []
    for row in report["stages"]:
        values = {name: item for name, item in row["values"].items() if name != "robustness"}
        fits = {
            f"fit {fit.get('name')}": {key: fit.get(key) for key in ("best_epoch", "seconds", "cached", "notes")}
            for fit in row["history"]
        }
        if values or fits:
            parts.append(markup.folded(row["name"], markup.yaml_text(values | fits)))
    return "".join(parts)


def _facts(report: Report) -> dict[str, Any]:
    data = report["data"]
    facts: dict[str, Any] = {"data": data["name"], "fingerprint": data["fingerprint"], "objective": report["objective"]}
    return facts | {"onnx": report.get("onnx") or {}} | dict(report["environment"])


def _files(folder: Path) -> str:
    """What lies in the run's folder, its own pages and tables included; links are relative."""
    found = [path for part in (folder, folder / "plots", folder / "tables") if part.is_dir() for path in part.iterdir()]
    rows = []
    for path in sorted(found):
        if path.is_file() and not path.name.startswith(".") and path.name != "report.html":
            name = path.relative_to(folder).as_posix()
            rows.append([Safe(f'<a href="{quote(name)}">{text(name)}</a>'), show.size(path.stat().st_size)])
    return markup.table(["file", "size"], rows) if rows else ""
