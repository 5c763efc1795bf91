"""The tables and the picture, from results.json and times.json alone."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cells import SIZES, cells

HERE = Path(__file__).parent
TARGETS = {16: ("8×", "1.4× at batch 1"), 64: ("40×", "8×")}
Entry = dict[str, Any]


def report() -> None:
    """Writes table.md and pareto.png."""
    entries: list[Entry] = json.loads((HERE / "results.json").read_text())
    path = HERE / "times.json"
    times: dict[str, Any] = json.loads(path.read_text()) if path.is_file() else {}
    parts = []
    rows = {}
    for width in SIZES:
        rows[width] = _rows([one for one in entries if one["width"] == width], times.get(str(width), {}), width)
        if rows[width]:
            parts += [f"### From width {width}\n", _about(entries, width), "", *_table(rows[width]), ""]
            parts += [*_masks(rows[width], entries, width), ""]
    (HERE / "table.md").write_text("\n".join(parts))
    _picture(rows)
    print("\n".join(parts))


def _rows(entries: list[Entry], times: dict[str, dict[str, float]], width: int) -> list[dict[str, Any]]:
    """One row a cell: what is to be printed and drawn."""
    controls = _controls(entries)
    found = []
    for cell in cells(width):
        ones = [one for one in entries if (one["family"], one["label"]) == (cell.family, cell.label)]
        if not ones:
            continue
        kind = "stack" if cell.family in ("stack", "control") else "single"
        better = [
            max(one["baseline"]["metrics"]["val/accuracy"], controls.get((one["seed"], kind), 0.0)) for one in ones
        ]
        accuracy = [one["last"]["metrics"]["val/accuracy"] for one in ones]
        base = ones[0]["baseline"]
        found.append(
            {
                "family": cell.family,
                "label": cell.label,
                "accuracy": accuracy,
                "drop": [a - b for a, b in zip(better, accuracy, strict=True)],
                "paired": [one["last"]["drop_interval"] for one in ones],
                "bytes": statistics.mean(one["last"]["bytes"] for one in ones),
                "size": _ratio(ones, "bytes"),
                "zip": _ratio(ones, "bytes_zip"),
                "macs": _ratio(ones, "macs") if cell.steps else base["macs"] / ones[0]["last"]["macs"],
                "times": times.get(cell.name, {}),
                "test": [one["test"]["final"]["test/accuracy"] for one in ones if one["test"]],
            }
        )
        if cell.family == "control":
            found[-1] |= {"size": None, "zip": None, "macs": None, "times": {}}
    return found


def _controls(entries: list[Entry]) -> dict[tuple[int, str], float]:
    """Validation accuracy of the baseline with the extra epochs of a single step, and of a stack, by seed."""
    return {
        (one["seed"], "stack" if one["family"] == "stack" else "single"): one["control"]
        for one in entries
        if one["control"] is not None
    }


def _ratio(ones: list[Entry], key: str) -> float:
    return statistics.mean(one["baseline"][key] / one["last"][key] for one in ones)


def _about(entries: list[Entry], width: int) -> str:
    size, own = SIZES[width], [one for one in entries if one["width"] == width]
    base = own[0]["baseline"]
    baselines = {one["seed"]: one["baseline"]["metrics"]["val/accuracy"] for one in own}
    controls = _controls(own)
    said = [f"{100 * statistics.mean(baselines.values()):.1f} %"]
    for kind, epochs in (("single", size.recover), ("stack", sum(size.stack))):
        values = [value for (_, which), value in controls.items() if which == kind]
        if values:
            said.append(f"{100 * statistics.mean(values):.1f} % after {epochs} more epochs ({kind} steps' control)")
    return (
        f"{base['parameters']:,} parameters, {base['macs'] / 1e6:.1f} M MACs, {base['bytes']:,} bytes; trained on "
        f"{size.images:,} images for {size.epochs} epochs, {len(baselines)} seed(s). Baseline on validation: "
        + ", ".join(said)
        + "."
    )


def _spread(values: list[float], paired: list[list[float]] | None = None) -> str:
    """In points: mean and interval over seeds; with one seed the paired interval over images."""
    from bigopt.report.interval import shown_interval

    text = shown_interval(values, scale=100)
    if len(values) > 1 or paired is None:
        return text
    return f"{text} ± {50 * (paired[0][1] - paired[0][0]):.1f}"


def _table(rows: list[dict[str, Any]]) -> list[str]:
    lines = [
        "| plugin | setting | validation, % | drop, points | smaller | zipped | MACs | faster, batch 1 | batch 256 | "
        "test, % |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]

    def times(value: float | None, digits: int = 1) -> str:
        return "" if value is None else f"{value:.{digits}f}×"

    for row in rows:
        cells_ = [
            f"`{row['family']}`" if row["family"] not in ("stack", "control") else row["family"],
            row["label"],
            _spread(row["accuracy"]),
            _spread(row["drop"], None if row["family"] == "control" else row["paired"]),
            times(row["size"]),
            times(row["zip"]),
            times(row["macs"]),
            times(row["times"].get("speedup_1"), 2),
            times(row["times"].get("speedup_256"), 2),
            _spread(row["test"]) if row["test"] else "",
        ]
        lines.append("| " + " | ".join(cells_) + " |")
    return lines


def _masks(rows: list[dict[str, Any]], entries: list[Entry], width: int) -> list[str]:
    """Half of the channels: by size, and by five random masks of the same trained net."""
    from bigopt.report.interval import shown_interval

    by = {(row["family"], row["label"]): row for row in rows}
    chosen = by.get(("channel_pruning", "ratio 0.5"))
    random = [row for row in rows if row["family"] == "random_pruning" and row["label"].startswith("ratio 0.5")]
    if chosen is None or len(random) < 2:
        return []
    seeds = min(len(row["accuracy"]) for row in [chosen, *random])
    gains = [
        100 * (chosen["accuracy"][seed] - statistics.mean(row["accuracy"][seed] for row in random))
        for seed in range(seeds)
    ]
    flat = [100 * row["accuracy"][seed] for row in random for seed in range(seeds)]
    said = shown_interval(gains, sign=True)
    return [
        f"Half of the channels, {len(random)} random masks of each net: {min(flat):.1f} to {max(flat):.1f} % "
        f"(mean {statistics.mean(flat):.1f}); chosen by size: {said} points against the mean of the masks."
    ]


def _picture(rows: dict[int, list[dict[str, Any]]]) -> None:
    """Accuracy against bytes and against latency, one row of panels a width."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    from bigopt.report.theme import MUTED, RC, SERIES, tidy

    shown = [width for width in rows if rows[width]]
    families = [name for name in dict.fromkeys(row["family"] for one in rows.values() for row in one if row["size"])]
    marks = "ovs^DPX*<>p"
    styles = {
        name: {"color": SERIES[number % len(SERIES)], "marker": marks[number % len(marks)]}
        for number, name in enumerate(families)
    }
    with plt.rc_context(RC):
        figure, panels = plt.subplots(len(shown), 2, figsize=(11, 4.2 * len(shown)), squeeze=False, sharey="row")
        for line, width in zip(panels, shown, strict=True):
            speed: Callable[[Any], float | None] = lambda row: row["times"].get("speedup_256")  # noqa: E731
            for axes, value, title in (
                (line[0], lambda row: row["size"], "times smaller (ONNX file)"),
                (line[1], speed, "times faster (batch 256, one thread)"),
            ):
                for row in rows[width]:
                    x = value(row)
                    if x is not None:
                        axes.scatter(
                            x, 100 * statistics.mean(row["accuracy"]), s=34, alpha=0.85, **styles[row["family"]]
                        )
                axes.set_xscale("log", base=2)
                axes.xaxis.set_major_formatter(lambda tick, _: f"{tick:g}×")
                axes.set_xlabel(title)
                best = max(statistics.mean(row["accuracy"]) + statistics.mean(row["drop"]) for row in rows[width])
                axes.axhline(100 * best, color=MUTED, linewidth=0.9, linestyle="--")
                tidy(axes)
            line[0].set_ylabel(f"validation accuracy, %, from width {width}")
            top = max(100 * statistics.mean(row["accuracy"]) for row in rows[width])
            line[0].set_ylim(top - 16, top + 1.5)  # what fell further is in the table alone
        handles = [plt.Line2D([], [], linestyle="", label=name, **style) for name, style in styles.items()]
        figure.legend(handles=handles, loc="lower center", ncols=6)
        figure.tight_layout(rect=(0, 0.06, 1, 1))
        figure.savefig(HERE / "pareto.png", dpi=130)
        plt.close(figure)


if __name__ == "__main__":
    report()
