"""Fashion-MNIST in 64, 32 and 16 KB, over seeds, and what each ingredient gives.

    python experiments/fashion_mnist_64kb/run.py                # points, then ingredients; goes on where it stopped
    python experiments/fashion_mnist_64kb/run.py points         # the three sizes, the largest with three seeds
    python experiments/fashion_mnist_64kb/run.py ingredients    # one removed at a time, all at a quarter of the epochs
    python experiments/fashion_mnist_64kb/run.py --table        # only rewrite table.md and front.png
    python experiments/fashion_mnist_64kb/run.py --time         # the files' latency anew, on a quiet machine

A cell is one `bigopt experiment=…`, in a folder of its own below --work, where a killed one is resumed. Everything is
chosen on validation; the test split is read once in each cell of `points`, and never for `ingredients`.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
RESULTS = HERE / "results.json"
STEPS = ("channel_pruning", "quantization")
QUARTER = {
    "trainer.max_epochs": "5",
    "compression.channel_pruning.recover.epochs": "15",
    "compression.quantization.recover.epochs": "3",
}
PUBLISHED = (
    ("2 conv layers", 92.5, 100_000 * 4),
    ("VGG16", 93.5, 26_000_000 * 4),
    ("GoogLeNet", 93.7, None),
    ("Google AutoML, 24 compute hours", 93.9, None),
    ("ResNet18", 94.9, 11_000_000 * 4),
    ("DenseNet-BC", 95.4, 768_000 * 4),
)
"""Rows of the data set's README: name, test accuracy in percent, bytes of that many parameters in float32."""


@dataclass(frozen=True)
class Cell:
    """One run: ``group`` and ``name`` tell it in the tables, ``words`` are what its command says beyond the seed."""

    group: str
    name: str
    seed: int
    words: tuple[str, ...]

    @property
    def key(self) -> str:
        """Name of its folder."""
        return f"{self.group}-{self.name}-{self.seed}".replace(" ", "_")


def cells() -> list[Cell]:
    found = [Cell("points", "64kb", 0, ("experiment=fashion_mnist_64kb",))]
    found += [Cell("points", size, 0, (f"experiment=fashion_mnist_{size}",)) for size in ("32kb", "16kb")]
    found += [Cell("points", "64kb", seed, ("experiment=fashion_mnist_64kb",)) for seed in (1, 2)]
    short = ("experiment=fashion_mnist_64kb", *(f"{name}={value}" for name, value in QUARTER.items()))
    total = sum(map(int, QUARTER.values())) - int(QUARTER["compression.quantization.recover.epochs"])
    eight = ("compression.channel_pruning.ratio=0.65", "compression.channel_pruning.round_to=8")
    for name, words in {
        "all": (),
        "no distillation": tuple(f"compression.{step}.recover.teacher=null" for step in STEPS),
        "random channels": ("compression.channel_pruning.criterion=random",),
        "small from the start, as many epochs": (
            "model.channels=[16,32,80]",
            "compression=[quantization]",
            f"trainer.max_epochs={total}",
        ),
        "8 bits, fewer channels": ("compression.quantization.bits=8", *eight),
        "no augmentation": ("augment=none",),
        "fresh augmentation for every batch": ("augment.copies=0",),
        "constant learning rate": ("scheduler=constant",),
        "norms re-estimated after pruning": ("compression=[channel_pruning,reestimate_norm,quantization]",),
    }.items():
        found.append(Cell("ingredients", name, 0, short + words))
    return found


def load() -> dict[str, Any]:
    return json.loads(RESULTS.read_text()) if RESULTS.is_file() else {}


def run(cell: Cell, work: Path) -> dict[str, Any]:
    """What the report of a cell says, after its command where that has not finished yet."""
    folder = work / cell.key
    file = folder / "report.json"
    if not file.is_file() or json.loads(file.read_text())["status"] != "finished":
        start(cell, work, folder)
    report = json.loads(file.read_text())
    kept = ("name", "metrics", "parameters", "macs", "bytes", "latency_ms", "seconds")
    rows = [{name: row[name] for name in kept} for row in report["stages"]]
    if cell.group == "points" and cell.seed == 0:
        shutil.copy(folder / "model.onnx", HERE / f"model_{cell.name}.onnx")
    test = report["test"]["final"]["test/accuracy"] if cell.group == "points" else None
    return {"stages": rows, "test": test, "n_test": 10_000, "budget": report["budget"], "command": " ".join(cell.words)}


def start(cell: Cell, work: Path, folder: Path) -> None:
    """A cell's command, or the rest of it; exit code 3 (a budget was missed) is a result like others."""
    from bigopt.cli.main import main
    from bigopt.pipeline import execute

    judged = cell.group == "points"
    words = [*cell.words, f"seed={cell.seed}", f"hydra.run.dir={folder}", f"cache={work / 'cache'}"]
    words += [f"tracking.uri=sqlite:///{work / 'mlflow.db'}"]
    words += [] if judged else ["measure.latency=false", "budget.max_latency_ms=null"]
    words = [f"resume={folder}"] if (folder / ".hydra").is_dir() else words
    print(f"{cell.key}: bigopt {' '.join(words)}", flush=True)
    code = main(words, lambda checked, *args, **options: execute(checked, *args, **(options | {"test": judged})))
    if code not in (0, 3):
        raise SystemExit(f"{cell.key}: exit code {code}")


def times() -> dict[str, float]:
    """Median milliseconds of one image on one thread, of each committed file by its cell, measured in turns."""
    import torch

    from bigopt.measure import latency

    first = (cell for cell in cells() if cell.group == "points" and cell.seed == 0)
    files = {cell.key: file for cell in first if (file := HERE / f"model_{cell.name}.onnx").is_file()}
    found = latency(files, torch.rand(1, 1, 28, 28), batches=(1,))
    return {key: each[1]["p50"] for key, each in found.items()}


def wilson(share: float, count: int) -> tuple[float, float]:
    """95% interval of a share of so many samples (Wilson 1927)."""
    z = 1.96
    middle, width = share + z * z / (2 * count), z * math.sqrt(share * (1 - share) / count + (z / (2 * count)) ** 2)
    return (middle - width) / (1 + z * z / count), (middle + width) / (1 + z * z / count)


def share(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.2f}%"


def table(results: dict[str, Any]) -> str:
    """Markdown: the points, then the ingredients."""
    lines = [
        "| file | seed | validation | test [95%] | bytes | parameters | batch 1, ms | pruned | large | minutes |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for cell in cells():
        found = results.get(cell.key)
        if found is None or cell.group != "points":
            continue
        large, pruned, final = (found["stages"][i] for i in (0, 1, -1))
        low, high = wilson(found["test"], found["n_test"])
        one_image = found.get("p50_ms") or final["latency_ms"]["batch_1"]["p50"]
        lines.append(
            f"| {cell.name} | {cell.seed} | {share(final['metrics']['val/accuracy'])} | {share(found['test'])} "
            f"[{100 * low:.2f}, {100 * high:.2f}] | {final['bytes']:,} | {final['parameters']:,} | "
            f"{one_image:.3f} | {share(pruned['metrics']['val/accuracy'])} | "
            f"{share(large['metrics']['val/accuracy'])} | {sum(s['seconds'] for s in found['stages']) / 60:.0f} |"
        )
    if any(cell.group == "ingredients" and cell.key in results for cell in cells()):
        lines += ["", "| at a quarter of the epochs | validation | bytes |", "|---|---|---|"]
    for cell in cells():
        if cell.group == "ingredients" and cell.key in results:
            final = results[cell.key]["stages"][-1]
            lines.append(f"| {cell.name} | {share(final['metrics']['val/accuracy'])} | {final['bytes']:,} |")
    return "\n".join(lines) + "\n"


def picture(results: dict[str, Any]) -> None:
    """Test accuracy over bytes, ours and the published ones."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(8, 4.5))
    for name, accuracy, size in PUBLISHED:
        if size is None:
            axes.axhline(accuracy, color="0.75", linewidth=0.8, linestyle="--")
            axes.annotate(name, (9e3, accuracy), (0, 2), textcoords="offset points", fontsize=8, color="0.5")
        else:
            axes.plot(size, accuracy, "o", color="0.5")
            axes.annotate(name, (size, accuracy), (6, -3), textcoords="offset points", fontsize=8, color="0.3")
    ours = [(r["stages"][-1]["bytes"], 100 * r["test"], k) for k, r in results.items() if r["test"] is not None]
    for size, accuracy, _ in ours:
        axes.plot(size, accuracy, "D", color="#c03030", zorder=3)
    for size, accuracy, key in ours:
        if key.endswith("-0"):
            label = f"{size / 1024:.0f} KB"
            axes.annotate(label, (size, accuracy), (-4, 7), textcoords="offset points", fontsize=9, color="#c03030")
    axes.set_xscale("log")
    ticks = {
        16 << 10: "16 KB",
        64 << 10: "64 KB",
        256 << 10: "256 KB",
        1 << 20: "1 MB",
        10 << 20: "10 MB",
        100 << 20: "100 MB",
    }
    axes.set_xticks(list(ticks), list(ticks.values()))
    axes.set_xlim(8 << 10, 400 << 20)
    axes.minorticks_off()
    axes.set_xlabel("size (ours: the ONNX file; published: parameters in float32; lines: size not given)")
    axes.set_ylabel("test accuracy, %")
    axes.set_title("Fashion-MNIST: bigopt's files (red) and the data set's own table (grey)")
    axes.grid(alpha=0.3)
    figure.tight_layout()
    figure.savefig(HERE / "front.png", dpi=130)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("groups", nargs="*", default=["points", "ingredients"], help="points, ingredients")
    parser.add_argument("--work", type=Path, default=Path(".bigopt") / "fashion_mnist_64kb", help="where cells run")
    parser.add_argument("--cells", nargs="*", help="only these, by key")
    parser.add_argument("--table", action="store_true")
    parser.add_argument("--time", action="store_true")
    asked = parser.parse_args()
    work = asked.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    os.chdir(work)
    for cell in cells():
        wanted = cell.group in asked.groups and (not asked.cells or cell.key in asked.cells)
        if wanted and not (asked.table or asked.time) and cell.key not in load():
            found = run(cell, work)
            from bigopt.store import lock, write_json

            with lock(work / "results.lock"):
                write_json(RESULTS, load() | {cell.key: found})
    if asked.time:
        from bigopt.store import write_json

        results = load()
        for key, p50 in times().items():
            results[key]["p50_ms"] = p50
        write_json(RESULTS, results)
    (HERE / "table.md").write_text(table(load()))
    picture(load())
    print(table(load()))


if __name__ == "__main__":
    main()
