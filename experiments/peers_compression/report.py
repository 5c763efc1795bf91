"""The table and the picture of the comparison."""

from __future__ import annotations

import ast
import math
from pathlib import Path
from typing import Any

from bigopt.report.interval import mean_interval, shown_interval
from bigopt.store import write_atomic

HERE = Path(__file__).parent
POINTS = ("int8", "prune+int8")
TOOLS = ("by hand", "Olive", "NNCF")
SCRIPTS = {"by hand": ["by_hand"], "Olive": ["by_hand", "olive_int8"], "NNCF": ["nncf_qat"]}
"""What the user of each writes for ``int8``; Olive neither trains nor prunes, so the training is done by hand."""
EQUAL = 0.5
"""Points of mean validation accuracy by which a file of bigopt may be worse than a peer's to count as equal."""


def write(results: dict[str, Any], bigopt: dict[str, list[str]]) -> None:
    """Writes ``table.md`` and ``peers.png``; nothing without a finished seed."""
    if not results:
        return
    seeds = sorted(results, key=int)
    write_atomic(
        HERE / "table.md", "\n".join([*main_table(results, seeds, bigopt), *verdicts(results, seeds)]).encode()
    )
    picture(results, seeds)


def main_table(results: dict[str, Any], seeds: list[str], bigopt: dict[str, list[str]]) -> list[str]:
    """One line a file: means over seeds with 95% intervals."""
    lines = [
        f"{len(seeds)} seeds; means with 95% intervals (Student's t). Product: bytes × latency of the baseline over "
        "that of the file. Lines: what the user adds to a program that trains and exports it (for bigopt, to the "
        "command that trains it).",
        "",
        "| file | val, % | test, % | drop on test, points | KB | ms, batch 1 | ms, batch 256 | faster, batch 1 | "
        "faster, batch 256 | product, batch 1 | product, batch 256 | lines | processor s |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name in results[seeds[0]]:
        rows = [results[seed][name] for seed in seeds]
        bases = [results[seed]["baseline"] for seed in seeds]
        drops = [100 * (base["test"] - row["test"]) for base, row in zip(bases, rows, strict=True)]
        cells = [
            name,
            *(shown_interval([100 * row[split] for row in rows]) for split in ("val", "test")),
            shown_interval(drops, 2),
            f"{mean(rows, 'bytes') / 1000:.1f}",
            *(f"{mean(rows, f'ms_{batch}'):.3g}" for batch in (1, 256)),
            *(shown_interval([row[f"speedup_{batch}"] for row in rows], 2) + "×" for batch in (1, 256)),
            *(shown_interval([product(results[seed], name, batch) for seed in seeds]) + "×" for batch in (1, 256)),
            str(written(name, bigopt) or ""),
            f"{mean(rows, 'seconds'):.0f}",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return [*lines, ""]


def verdicts(results: dict[str, Any], seeds: list[str]) -> list[str]:
    """The best file of bigopt with at least equal accuracy against every peer, at both points."""
    lines = [
        f"bigopt against each peer: its file with the largest product whose mean validation accuracy is at most "
        f"{EQUAL} points below the peer's. Ratios above 1 are in bigopt's favour (geometric means with 95% intervals).",
        "",
        "| point | peer | bigopt's file | test, points above the peer | bytes | speed, batch 1 | speed, batch 256 | "
        "product, batch 1 | product, batch 256 |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for point in POINTS:
        for tool in TOOLS:
            peer = f"{tool} {point}"
            own = chosen(results, seeds, point, peer)
            if own is None:
                lines.append(f"| {point} | {tool} | none is as accurate | | | | | | |")
                continue
            above = [100 * (results[seed][own]["test"] - results[seed][peer]["test"]) for seed in seeds]
            ratios = [geometric([results[s][peer]["bytes"] / results[s][own]["bytes"] for s in seeds])]
            for batch in (1, 256):
                key = f"speedup_{batch}"
                ratios.append(geometric([results[s][own][key] / results[s][peer][key] for s in seeds]))
            for batch in (1, 256):
                both = [product(results[s], own, batch) / product(results[s], peer, batch) for s in seeds]
                ratios.append(geometric(both))
            lines.append("| " + " | ".join([point, tool, own, shown_interval(above, 2, sign=True), *ratios]) + " |")
    return [*lines, ""]


def chosen(results: dict[str, Any], seeds: list[str], point: str, peer: str) -> str | None:
    """The file of bigopt with the largest product at batch 1 among those as accurate as the peer's, by validation."""
    floor = mean([results[seed][peer] for seed in seeds], "val") - EQUAL / 100
    names = [f"bigopt {point}", f"bigopt {point.replace('8', '4')}"]
    able = [name for name in names if mean([results[seed][name] for seed in seeds], "val") >= floor]
    return max(able, key=lambda name: sum(math.log(product(results[seed], name, 1)) for seed in seeds), default=None)


def product(rows: dict[str, Any], name: str, batch: int) -> float:
    """Bytes × latency of the baseline over the file's, the latencies paired."""
    return rows["baseline"]["bytes"] / rows[name]["bytes"] * rows[name][f"speedup_{batch}"]


def written(name: str, bigopt: dict[str, list[str]]) -> int:
    """Lines of a program, or settings of a command, that the user writes for this file."""
    if name in bigopt:
        return len(bigopt[name]) + 2  # model.weights and trainer.max_epochs=0
    if name == "baseline":
        return 0
    tool, point = name.rsplit(" ", 1)
    scripts = [*(["prune"] if point.startswith("prune") else []), *SCRIPTS[tool]]
    return sum(code_lines(HERE / "peers" / f"{script}.py") for script in scripts)


def code_lines(file: Path) -> int:
    """Lines with code: no blank ones, comments or docstrings."""
    tree = ast.parse(file.read_text())
    used: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.stmt) and not (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)):
            inner = getattr(node, "body", None)
            last = inner[0].lineno - 1 if isinstance(inner, list) and inner else node.end_lineno
            used.update(range(node.lineno, max(last or node.lineno, node.lineno) + 1))
    text = file.read_text().splitlines()
    return sum(bool(text[number - 1].strip()) for number in used)


def mean(rows: list[dict[str, Any]], key: str) -> float:
    return sum(row[key] for row in rows) / len(rows)


def geometric(ratios: list[float]) -> str:
    middle, half = mean_interval([math.log(ratio) for ratio in ratios])
    if math.isnan(half):
        return f"{math.exp(middle):.2f}"
    return f"{math.exp(middle):.2f} [{math.exp(middle - half):.2f}, {math.exp(middle + half):.2f}]"


def picture(results: dict[str, Any], seeds: list[str]) -> None:
    """Test accuracy over bytes × latency at batch 1: a dot a seed, a line around each tool's means."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2, figsize=(11, 4.5), sharey=True, layout="constrained")
    for axis, batch in zip(axes, (1, 256), strict=True):
        for number, name in enumerate(results[seeds[0]]):
            rows = [results[seed][name] for seed in seeds]
            x = [row["bytes"] / 1000 * row[f"ms_{batch}"] for row in rows]
            marker = "*" if name.startswith("bigopt") else "o" if name != "baseline" else "s"
            colour = pyplot.get_cmap("tab20")(number)
            axis.scatter(x, [100 * row["test"] for row in rows], color=colour, marker=marker, s=60, label=name)
        axis.set(xscale="log", xlabel=f"KB × ms at batch {batch} (less is better)")
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("test accuracy, %")
    axes[1].legend(fontsize=8)
    figure.savefig(HERE / "peers.png", dpi=110)
    pyplot.close(figure)
