"""New classes: what a net trained on Fashion-MNIST's classes 0 to 4 gives to classes 5 to 9 with 20 labels each.

    python experiments/new_classes/run.py            # everything; goes on where it stopped
    python experiments/new_classes/run.py --table    # only rewrite table.md

A cell is one training on the 100 labelled samples, judged once on the test split. Every method's learning rate is
chosen from the same four on the validation split of a development seed that is not reported. Then feature matching: a
net trained on digits under the head of one trained on mnist5k. Results are written to results.json after every cell.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from functools import lru_cache
from pathlib import Path
from typing import Any

from bigopt.report.interval import shown_interval

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))
from command import report_of  # noqa: E402

RESULTS = HERE / "results.json"
SOURCES = Path(".bigopt") / "new_classes"

MODEL = {"name": "resnet", "width": 8, "depth": [1, 1, 1]}
SOURCE = {"name": "fashion_mnist", "classes": [0, 1, 2, 3, 4], "limit": 3000, "val": 0.01}
TARGET = {"name": "fashion_mnist", "classes": [5, 6, 7, 8, 9], "labels_per_class": 20, "val": 0.004}
SOURCE_EPOCHS, SOURCE_LR = 4, 1e-2
EPOCHS, BATCH = 30, 25
RATES = (3e-3, 1e-2, 3e-2, 1e-1)
SEEDS, DEV = (1, 2, 3, 4, 5), 100


METHODS: dict[str, tuple[str, dict[str, Any]]] = {
    "scratch": ("none", {}),
    "extraction": ("feature_extraction", {}),
    "concatenation": ("feature_concatenation", {"layers": ["stem", "stages.*"]}),
    "fine-tuning": ("fine_tuning", {}),
    "LP-FT": ("fine_tuning", {"probe_epochs": 15}),
}
MAPS = ("ridge", "mlp", "procrustes")
MATCHING = (
    "model=resnet model.width=8 dataset=digits transfer=feature_matching transfer.source=mnist5k trainer.max_epochs=12 "
    "trainer.batch_size=64 optimizer.lr=1e-2 trainer.compile=off measure=quick tracking=none"
).split()


@lru_cache(maxsize=2)
def data_of(which: str, seed: int) -> Any:
    from bigopt.pipeline.build import Builder

    return Builder(seed).dataset(TARGET if which == "target" else SOURCE)


def run_of(spec: dict[str, Any], seed: int, epochs: int, lr: float, folder: Path) -> Any:
    from bigopt.pipeline.build import Builder
    from bigopt.pipeline.relay import Relay
    from bigopt.vocabulary.objective import Monitor
    from bigopt.vocabulary.run import Run, Silent
    from bigopt.vocabulary.settings import Optimizer, Settings, Trainer
    from bigopt.vocabulary.task import Task

    builder = Builder(seed)
    data = data_of("target" if spec is TARGET else "source", seed)
    trainer = Trainer(max_epochs=epochs, batch_size=BATCH if spec is TARGET else 64, precision="fp32", compile="off")
    extra = {"model": MODEL, "dataset": spec}
    return Run(
        model=builder.model(MODEL, data),
        data=data,
        task=Task.of(data.schema),
        monitor=Monitor("val/accuracy", "max"),
        settings=Settings(trainer=trainer, optimizer=Optimizer(lr=lr), extra=extra),
        folder=folder,
        seed=seed,
        build=builder,
        report=Silent(),
        progress=Relay(None, lambda *_: None),
    )


def source_of(seed: int) -> Path:
    """The folder of the source model of a seed, trained once."""
    from bigopt.pipeline.structure import save_structure
    from bigopt.train import Fitter

    folder = SOURCES.resolve() / str(seed)
    if not (folder / "structure.json").is_file():
        run = run_of(SOURCE, seed, SOURCE_EPOCHS, SOURCE_LR, folder)
        Fitter(folder)(run, name="source")
        save_structure(run.model, MODEL, run.model.changes, folder)
    return folder


def train(method: str, seed: int, lr: float, tested: bool = True) -> dict[str, Any]:
    """One training; the result's figures. The test split is read for cells only."""
    from bigopt import registry
    from bigopt.train import Fitter, evaluate

    plugin, arguments = METHODS[method]
    source = {} if plugin == "none" else {"source": str(source_of(seed))}
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        run = run_of(TARGET, seed, EPOCHS, lr, folder)
        part: Any = registry.build("transfer", plugin, {**arguments, **source})
        run.parts = [part]
        fit = Fitter(folder)
        part.prepare(run, fit)
        trained = sum(p.numel() for p in run.model.parameters() if p.requires_grad)
        began = time.perf_counter()
        history = fit(run, name="baseline")
        epoch = (time.perf_counter() - began) / len(history.epochs)
        part.finish(run, fit)
        found = {"val": evaluate(run, run.data.val)["accuracy"]}
        if tested:
            found["test"] = evaluate(run, run.data.read_test())["accuracy"]
    return found | {"trained": trained, "epoch_s": round(epoch, 4), "seconds": round(time.perf_counter() - start, 1)}


def match(map_: str, seed: int) -> dict[str, Any]:
    """One run of feature matching: the plugin's own row of errors, and the test split's accuracy."""
    cache = SOURCES.resolve() / "cache"
    report = report_of([*MATCHING, f"transfer.map={map_}", f"seed={seed}", f"cache={cache}"])
    row = report["stages"][0]["values"]["feature_matching"]
    return row | {"test": report["test"]["final"]["test/accuracy"]}


def load() -> dict[str, Any]:
    return json.loads(RESULTS.read_text()) if RESULTS.is_file() else {"choices": {}, "cells": {}}


def save(results: dict[str, Any]) -> None:
    from bigopt.store import write_atomic

    write_atomic(RESULTS, (json.dumps(results, indent=1, sort_keys=True) + "\n").encode())
    write_atomic(HERE / "table.md", table(results).encode())


def everything() -> None:
    results = load()
    for method in METHODS:
        tried = results["choices"].setdefault(method, {})
        for lr in RATES:
            if str(lr) not in tried:
                tried[str(lr)] = train(method, DEV, lr, tested=False)["val"]
                save(results)
    for seed in SEEDS:
        for method in METHODS:
            cell = f"{method}/{seed}"
            lr = best_rate(results["choices"][method])
            if results["cells"].get(cell, {}).get("lr") != lr:
                results["cells"][cell] = train(method, seed, lr) | {"lr": lr}
                save(results)
                print(cell, results["cells"][cell], flush=True)
    cells = results.setdefault("matching", {})
    for seed in SEEDS:
        for map_ in MAPS:
            if f"{map_}/{seed}" not in cells:
                cells[f"{map_}/{seed}"] = match(map_, seed)
                save(results)


def best_rate(tried: dict[str, float]) -> float:
    return float(max(tried, key=lambda lr: tried[lr]))


def table(results: dict[str, Any]) -> str:
    """Test accuracy of every method, and its paired difference to training from scratch."""
    lines = [
        "| method | test accuracy, % | against scratch, points | learning rate | trained parameters | ms an epoch |",
        "|---|---|---|---|---|---|",
    ]
    cells = results["cells"]
    for method in METHODS:
        rows = {seed: cells[f"{method}/{seed}"] for seed in SEEDS if f"{method}/{seed}" in cells}
        if not rows:
            continue
        gains = [
            row["test"] - cells[f"scratch/{seed}"]["test"] for seed, row in rows.items() if f"scratch/{seed}" in cells
        ]
        epoch = 1000 * statistics.median(row["epoch_s"] for row in rows.values())
        one = next(iter(rows.values()))
        lines.append(
            f"| {method} | {shown_interval([row['test'] for row in rows.values()], scale=100)} | "
            f"{'' if method == 'scratch' else shown_interval(gains, scale=100)} | "
            f"{one['lr']:g} | {one['trained']:,} | {epoch:.0f} |"
        )
    seeds = max((len([c for c in cells if c.startswith(f"{m}/")]) for m in METHODS), default=0)
    lines += ["", f"{seeds} seeds; 95% intervals of Student's t over seeds, differences paired by seed."]
    return "\n".join([*lines, *matching_table(results.get("matching", {}))]) + "\n"


MATCHED = {
    "error/val": "matching error",
    "accuracy/own_head": "own head",
    "accuracy/old_model": "old model",
    "accuracy/matched": "matched",
    "extra_error/own_head": "lost to own head",
    "test": "matched, test",
}
"""Columns of feature matching, in percent and points; all but the last on validation."""


def matching_table(cells: dict[str, Any]) -> list[str]:
    """Of each map how far the features are off and what that costs; nothing before there are cells."""
    lines = ["", f"| map, all in % | {' | '.join(MATCHED.values())} |", "|---" * (1 + len(MATCHED)) + "|"]
    for map_ in MAPS:
        if rows := [cells[f"{map_}/{seed}"] for seed in SEEDS if f"{map_}/{seed}" in cells]:
            shown = [shown_interval([row[key] for row in rows], scale=100) for key in MATCHED]
            lines.append(f"| {map_} | {' | '.join(shown)} |")
    return lines if cells else []


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--table", action="store_true", help="only rewrite table.md")
    if parser.parse_args().table:
        save(load())
    else:
        everything()
