"""Distillation: how much of the gap between teacher and student it closes, over seeds, in paired differences.

    python experiments/distillation/run.py            # everything; goes on where it stopped
    python experiments/distillation/run.py --table    # only rewrite table.md

Each cell is one training, judged once on the test split at its best validation epoch. The learning rate of every
student, distilled or alone, is chosen from the same grid by the mean on the validation splits of three development
seeds that are not among those reported. Results are written to results.json after every cell.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import tempfile
import time
from functools import lru_cache
from pathlib import Path
from typing import Any

from bigopt.report.interval import mean_interval, student

HERE = Path(__file__).parent
RESULTS = HERE / "results.json"
CACHE = Path(os.environ.get("BIGOPT_EXPERIMENT_CACHE", ".bigopt/cache"))

DATA = {"limit": 10_000, "val": 0.05}
LARGE = {"name": "resnet", "depth": (1, 1, 1), "width": 16}
SMALL = {"name": "resnet", "depth": (1, 1), "width": 8}
EPOCHS, BATCH = 15, 128
GRID = (1e-2, 3e-2, 1e-1)
DEVELOPMENT, SEEDS = (100, 101, 102), 5
ANSWERS = {"temperature": 2.0, "alpha": 0.9}
VARIANTS: dict[str, tuple[dict[str, Any], dict[str, Any] | None]] = {
    "large alone": (LARGE, None),
    "small alone": (SMALL, None),
    "small, answers": (SMALL, ANSWERS),
    "small, answers and attention": (SMALL, {**ANSWERS, "attention": 10.0}),
    "small, answers and relations": (SMALL, {**ANSWERS, "distance": 1.0, "angle": 2.0}),
    "large, answers of the small": (LARGE, ANSWERS),
}
"""Each student with what it is distilled by; None for labels alone."""


def run_of(data: Any, model: dict[str, Any], seed: int, lr: float, folder: Path) -> Any:
    """A run of this model, without anything around it."""
    from bigopt.pipeline.build import Builder
    from bigopt.pipeline.relay import Relay
    from bigopt.vocabulary.objective import Monitor
    from bigopt.vocabulary.run import Run, Silent
    from bigopt.vocabulary.settings import Optimizer, Settings, Trainer
    from bigopt.vocabulary.task import Task

    trainer = Trainer(max_epochs=EPOCHS, batch_size=BATCH, precision="auto", compile="off")
    builder = Builder(seed)
    return Run(
        model=builder.model(model, data),
        data=data,
        task=Task.of(data.schema),
        monitor=Monitor("val/accuracy", "max"),
        settings=Settings(trainer=trainer, optimizer=Optimizer(lr=lr), extra={"model": model, "dataset": {}}),
        folder=folder,
        seed=seed,
        build=builder,
        report=Silent(),
        progress=Relay(None, lambda *_: None),
    )


@lru_cache(maxsize=1)
def data_of(seed: int) -> Any:
    from bigopt import registry

    return registry.build("datasets", "fashion_mnist", DATA, {"seed": seed})


def accuracy(model: Any, split: Any) -> float:
    from bigopt.train import predict

    return (predict(model, split).argmax(1) == split.y).double().mean().item()


def train(variant: str, seed: int, lr: float, teacher_lr: float | None) -> dict[str, Any]:
    """One training; the result's figures. Teachers come from the stage cache."""
    from bigopt.store import Store
    from bigopt.train import Fitter
    from bigopt_plugins.transfer.distillation.plugin import Distillation

    start = time.perf_counter()
    model, how = VARIANTS[variant]
    data = data_of(seed)
    with tempfile.TemporaryDirectory() as folder:
        run = run_of(data, model, seed, lr, Path(folder))
        fit = Fitter(Path(folder), Store(CACHE))
        if how is not None:
            part = Distillation(teacher=SMALL if model is LARGE else LARGE, teacher_lr=teacher_lr, **how)
            run.parts = [part]
            part.prepare(run, fit)
        fit(run, EPOCHS, share=True, name="teacher")
    figures = {"val": accuracy(run.model, data.val), "test": accuracy(run.model, data.read_test())}
    return figures | {"lr": lr, "seconds": round(time.perf_counter() - start, 1)}


class Results:
    """Figures by cell, kept on disk."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.cells: dict[str, dict[str, Any]] = json.loads(path.read_text())["cells"] if path.is_file() else {}

    def get(self, variant: str, seed: int, lr: float, teacher_lr: float | None = None) -> dict[str, Any]:
        """A cell, trained unless it is known."""
        key = f"{variant} | seed {seed} | lr {lr:g}" + (f" | teacher {teacher_lr:g}" if teacher_lr else "")
        if key not in self.cells:
            self.cells[key] = train(variant, seed, lr, teacher_lr)
            print(key, self.cells[key], flush=True)
            self.write()
        return self.cells[key]

    def write(self) -> None:
        """Replaces the file in one step."""
        setting = {"data": DATA, "large": LARGE, "small": SMALL, "epochs": EPOCHS, "batch": BATCH, "grid": GRID}
        temporary = self.path.with_suffix(".tmp")
        temporary.write_text(json.dumps({"setting": setting, "cells": self.cells}, indent=1) + "\n")
        temporary.replace(self.path)


def best_rate(results: Results, variant: str, teacher_lr: float | None) -> float:
    """The rate of the grid with the highest mean validation accuracy over the development seeds."""

    def mean(lr: float) -> float:
        return statistics.mean(results.get(variant, seed, lr, teacher_lr)["val"] for seed in DEVELOPMENT)

    return max(GRID, key=mean)


def rates_of(results: Results) -> dict[str, tuple[float, float | None]]:
    """Rate of every student, and of its teacher."""
    rates: dict[str, tuple[float, float | None]] = {}
    for variant, (model, how) in VARIANTS.items():
        teacher = None if how is None else rates["small alone" if model is LARGE else "large alone"][0]
        rates[variant] = (best_rate(results, variant, teacher), teacher)
    return rates


def everything(results: Results) -> dict[str, dict[int, float]]:
    """Test accuracy by variant and seed; a seed is finished before the next one begins."""
    rates = rates_of(results)
    found: dict[str, dict[int, float]] = {variant: {} for variant in VARIANTS}
    for seed in range(SEEDS):
        for variant, how in rates.items():
            found[variant][seed] = results.get(variant, seed, *how)["test"]
    return found


def interval(values: list[float]) -> tuple[float, float, float]:
    """Mean with the ends of its 95% interval."""
    mean, half = mean_interval(values)
    return mean, mean - half, mean + half


def points(values: list[float]) -> str:
    mean, low, high = interval([100 * value for value in values])
    return f"{mean:+.2f} [{low:+.2f}, {high:+.2f}]"


def table(found: dict[str, dict[int, float]]) -> str:
    """The results as Markdown."""
    lines = [
        f"Fashion-MNIST, {DATA['limit']} training images, {EPOCHS} epochs, {SEEDS} seeds; 95% intervals of paired "
        "differences.",
        "",
        "| student | test accuracy | over the same alone, points | share of the gap recovered |",
        "|---|---|---|---|",
    ]
    large, small = found["large alone"], found["small alone"]
    gap = [large[s] - small[s] for s in range(SEEDS)]
    for variant, (model, how) in VARIANTS.items():
        one = found[variant]
        alone = large if model is LARGE else small
        gain = [one[s] - alone[s] for s in range(SEEDS)]
        cells = [variant, f"{100 * statistics.mean(one.values()):.2f}%"]
        cells += [points(gain) if how is not None else ""]
        cells += [share(gain, gap) if how is not None and model is SMALL else ""]
        lines.append("| " + " | ".join(cells) + " |")
    lines += ["", f"The gap between the two alone: {points(gap)} points."]
    return "\n".join(lines) + "\n"


def share(gain: list[float], gap: list[float]) -> str:
    """Mean gain over mean gap, with a 95% interval (Fieller's, from the paired seeds)."""
    ratio = statistics.mean(gain) / statistics.mean(gap)
    n, t = len(gain), student(len(gain))
    a, b = statistics.mean(gain), statistics.mean(gap)
    va, vb = statistics.variance(gain) / n, statistics.variance(gap) / n
    cov = sum((x - a) * (y - b) for x, y in zip(gain, gap, strict=True)) / (n - 1) / n
    g = t**2 * vb / b**2
    if g >= 1:
        return f"{100 * ratio:.0f}%"
    root = math.sqrt(max(0.0, va - 2 * ratio * cov + ratio**2 * vb - g * (va - cov**2 / vb if vb else 0.0)))
    centre, half = ratio - (g * cov / vb if vb else 0.0), t / b * root
    return f"{100 * ratio:.0f}% [{100 * (centre - half) / (1 - g):.0f}, {100 * (centre + half) / (1 - g):.0f}]"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--table", action="store_true", help="only rewrite table.md")
    only = parser.parse_args().table
    results = Results(RESULTS)
    if only and not results.cells:
        parser.error("there is no results.json yet")
    text = table(everything(results))
    (HERE / "table.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
