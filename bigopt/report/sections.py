"""The sections of the page below its head."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from bigopt.report import format as show
from bigopt.report import markup
from bigopt.report.markup import Safe, cell, text
from bigopt.report.reading import control_name, final_row, first_objective
from bigopt.report.stage import value_of

Report = Mapping[str, Any]
_CAPTIONS = {
    "tradeoff": "The first objective against the size of the file, with the paired interval of the drop. "
    "The control is the uncompressed model with the same extra training.",
    "stages": "Per stage, on the file that would be deployed; latency is the median.",
    "robustness": "How the metric goes down with the strength of the corruptions (validation split).",
    "curves": "Every fit in turn; a ring marks the epoch that was kept.",
    "lr_finder": "The range test before the first fit (optimizer.lr=auto); the ring marks the rate that was taken.",
}


def stages(report: Report) -> str:
    """The stage table; the control and the last step are marked."""
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


def pictures(drawn: Mapping[str, str]) -> str:
    """The pictures with what they show."""
    return "".join(
        f'<div class="panel{" narrow" if name in ("tradeoff", "robustness", "lr_finder") else ""}">{svg}'
        f'<p class="hint">{text(_CAPTIONS.get(name, ""))}</p></div>'
        for name, svg in drawn.items()
    )


def metrics(report: Report) -> str:
    """Every validation metric of every stage."""
    names = list(
        dict.fromkeys(name for row in report["stages"] for name in row["metrics"] if "robustness/" not in name)
    )
    if not names:
        return ""
    rows = [
        [row["name"], *(show.metric_text(name, row["metrics"].get(name)) for name in names)] for row in report["stages"]
    ]
    return markup.table(["stage", *names], rows)


def tables(report: Report) -> str:
    """What Parts left as tables."""
    parts = [part for part in (report.get("tables") or {}).values() if part["rows"]]
    return "".join(markup.records(part["rows"], part["file"]) for part in parts)


def details(report: Report) -> str:
    """What is known about each stage beyond the table, folded."""
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


def facts(report: Report) -> str:
    """What the run ran on, and on which data."""
    data = report["data"]
    known: dict[str, Any] = {"data": data["name"], "fingerprint": data["fingerprint"], "objective": report["objective"]}
    return markup.facts(known | {"onnx": report.get("onnx") or {}} | dict(report["environment"]))


def files(folder: Path) -> str:
    """What lies in the run's folder, its own pages and tables included; links are relative."""
    found = [path for part in (folder, folder / "plots", folder / "tables") if part.is_dir() for path in part.iterdir()]
    rows = []
    for path in sorted(found):
        if path.is_file() and not path.name.startswith(".") and path.name != "report.html":
            name = path.relative_to(folder).as_posix()
            rows.append([Safe(f'<a href="{quote(name)}">{text(name)}</a>'), show.size(path.stat().st_size)])
    return markup.table(["file", "size"], rows) if rows else ""
