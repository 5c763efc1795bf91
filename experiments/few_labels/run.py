"""Few labels: what unlabelled samples give beside supervised training, over seeds, in paired differences.

    python experiments/few_labels/run.py                 # everything; goes on where it stopped
    python experiments/few_labels/run.py digits_5        # one setting
    python experiments/few_labels/run.py --table         # only rewrite table.md

Each cell is one training, judged once on the test split. No label beyond the budget is read by a method: the last
epoch is kept, and nothing is chosen by validation. Only the supervised baseline is helped by an oracle: its learning
rate and augmentation are chosen for each setting by validation labels beyond the budget. Results are written to
results.json after every cell.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from bigopt.report.interval import mean_interval

HERE = Path(__file__).parent
RESULTS = HERE / "results.json"

SETTINGS: dict[str, dict[str, Any]] = {
    "fashion_10": {
        "dataset": {"name": "fashion_mnist", "labels_per_class": 10, "limit": 6000, "val": 0.02},
        "epochs": 30,
    },
    "digits_5": {"dataset": {"name": "digits", "labels_per_class": 5}, "epochs": 60},
    "fashion_40": {
        "dataset": {"name": "fashion_mnist", "labels_per_class": 40, "limit": 6000, "val": 0.02},
        "epochs": 30,
    },
}
SEMI = ("pseudo_label", "mean_teacher", "fixmatch", "flexmatch", "freematch", "softmatch")
METHODS = ("supervised", *SEMI, "co_training")
SHARED = {"ratio": 2, "selection": "last"}
EMA, BATCH, DEV = 0.99, 32, 100
"""The same for all methods; the development seed DEV is none of those reported."""
RATES = (1e-3, 3e-3, 1e-2)
CHOICES = {
    "supervised": [{"lr": lr, "augment": augment} for lr in RATES for augment in ("weak", "strong")],
    "fixmatch": [{"lr": lr, "labelled": view} for lr in RATES for view in ("weak", "strong")],
}
"""What the supervised baseline, and what all other methods are chosen from."""
SEEDS = 5


@lru_cache(maxsize=1)
def data_of(setting: str, seed: int) -> Any:
    from bigopt import registry

    spec = dict(SETTINGS[setting]["dataset"])
    name = spec.pop("name")
    return registry.build("datasets", name, {**spec, "unlabelled": True}, {"seed": seed})


class Nets:
    """Builds the net of this experiment: three convolutions with batch norm, 24,474 parameters, little work."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def model(self, _spec: Any, data: Any) -> Any:
        """The net for this data, from this seed's weights."""
        import torch
        from torch import nn

        from bigopt.vocabulary.network import Network

        torch.manual_seed(self.seed)
        stride = 2 if data.schema.shape[1] > 16 else 1
        layers: list[nn.Module] = []
        for inputs, outputs, size, step in ((1, 16, 5, stride), (16, 32, 3, 2), (32, 64, 3, 2)):
            layers += [
                nn.Conv2d(inputs, outputs, size, step, size // 2, bias=False),
                nn.BatchNorm2d(outputs),
                nn.ReLU(),
            ]
        head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, data.schema.num_classes)]
        return Network.for_data(nn.Sequential(*layers, *head), data)


def run_of(data: Any, seed: int, epochs: int, lr: float, folder: Path) -> Any:
    from bigopt.pipeline.relay import Relay
    from bigopt.vocabulary.objective import Monitor
    from bigopt.vocabulary.run import Run, Silent
    from bigopt.vocabulary.settings import Optimizer, Settings, Trainer
    from bigopt.vocabulary.task import Task

    trainer = Trainer(max_epochs=epochs, batch_size=BATCH, precision="fp32", compile="off", ema=EMA)
    builder = Nets(seed)
    return Run(
        model=builder.model({}, data),
        data=data,
        task=Task.of(data.schema),
        monitor=Monitor("val/accuracy", "max"),
        settings=Settings(trainer=trainer, optimizer=Optimizer(lr=lr), extra={"model": {}, "dataset": {}}),
        folder=folder,
        seed=seed,
        build=builder,
        report=Silent(),
        progress=Relay(None, lambda *_: None),
    )


def supervised_part(kind: str) -> Any:
    """Labelled rows alone, in the views that the other methods give them (or in strong ones); last epoch kept."""
    from bigopt.vocabulary.part import Part
    from bigopt_plugins.transfer._selection import keep_last
    from bigopt_plugins.transfer._views import views_of

    made: list[Any] = []

    class Supervised(Part):
        def __init__(self, augment: str) -> None:
            self.augment = augment

        def batch(self, run: Any, batch: Any) -> Any:
            if not made:
                made.append(getattr(views_of(run.data, 0.5), self.augment))
            return batch.with_(x=made[0](batch.x))

        def callbacks(self, run: Any) -> list[Any]:
            return [keep_last(run)]

    return Supervised(kind)


def accuracy(model: Any, split: Any) -> float:
    from bigopt.train import predict

    return (predict(model, split).argmax(1) == split.y).double().mean().item()


def train(setting: str, method: str, seed: int, choice: dict[str, Any]) -> dict[str, Any]:
    """One training; the result's figures."""
    from bigopt.train import Fitter
    from bigopt_plugins.transfer._unlabelled import one_pass

    start = time.perf_counter()
    data, epochs = data_of(setting, seed), SETTINGS[setting]["epochs"]
    more = {name: value for name, value in choice.items() if name != "lr"}
    with tempfile.TemporaryDirectory() as folder:
        run = run_of(data, seed, epochs, choice["lr"], Path(folder))
        if method == "supervised":
            part = supervised_part(more["augment"])
            run.data = replace(one_pass(data, SHARED["ratio"], BATCH), unlabelled=None)  # as many steps as the others
        else:
            part = method_part(method, more)
            part.prepare(run, None)
        run.parts = [part]
        Fitter(Path(folder))(run, epochs)
        found: dict[str, Any] = {}
        if method == "co_training":
            found |= ensemble_figures(run, part, data)
        part.finish(run, None)
        found["val"] = accuracy(run.model, data.val)
        found["test"] = accuracy(run.model, data.read_test())
    return found | {"seconds": round(time.perf_counter() - start, 1)}


def method_part(method: str, more: dict[str, Any]) -> Any:
    from bigopt_plugins.transfer.co_training.plugin import CoTraining
    from bigopt_plugins.transfer.semi_supervised.plugin import SemiSupervised

    if method == "co_training":
        return CoTraining(**SHARED, ship="first", **more)
    return SemiSupervised(method, **SHARED, **more)


def ensemble_figures(run: Any, part: Any, data: Any) -> dict[str, float]:
    """The second model's test accuracy and that of both together, at twice the work."""
    from bigopt.train import predict
    from bigopt_plugins.transfer.co_training._choice import ensemble

    split = data.test
    outputs = [predict(model, split) for model in (run.model, part._second)]
    values = {"second": outputs[1], "ensemble": ensemble(outputs, classes=True)}
    return {f"test_{name}": (v.argmax(1) == split.y).double().mean().item() for name, v in values.items()}


def load() -> dict[str, Any]:
    return json.loads(RESULTS.read_text()) if RESULTS.is_file() else {"choices": {}, "cells": {}}


def save(results: dict[str, Any]) -> None:
    from bigopt.store import write_atomic

    write_atomic(RESULTS, (json.dumps(results, indent=1, sort_keys=True) + "\n").encode())
    write_table(results)


def chosen_for(setting: str, method: str, results: dict[str, Any]) -> dict[str, Any]:
    """The best of a method's CHOICES on validation of the development seed, an oracle; FixMatch's for the others."""
    key = method if method in CHOICES else "fixmatch"
    tried = results["choices"].setdefault(f"{setting}/{key}", [])
    for choice in CHOICES[key][len(tried) :]:
        tried.append({**choice, "val": train(setting, key, DEV, choice)["val"]})
        save(results)
    best = max(tried, key=lambda each: each["val"])
    return {name: value for name, value in best.items() if name != "val"}


def write_table(results: dict[str, Any]) -> None:
    """table.md: test accuracy, and paired differences to supervised training, in points."""
    lines = []
    for setting in SETTINGS:
        known = {m: results["cells"].get(f"{setting}/{m}", {}) for m in METHODS}
        if not known["supervised"]:
            continue
        lines += [f"## {setting}", "", "| method | seeds | test accuracy % | difference to supervised, points | s |"]
        lines.append("|---|---|---|---|---|")
        for method, cells in known.items():
            seeds = sorted(set(cells) & set(known["supervised"]), key=int)
            rows = [(method, [cells[s]["test"] for s in seeds], [cells[s]["seconds"] for s in seeds])]
            if method == "co_training" and seeds:
                rows.append(("co_training, ensemble of both", [cells[s]["test_ensemble"] for s in seeds], rows[0][2]))
            for name, values, seconds in rows:
                if not seeds:
                    continue
                mean, half = mean_interval([100 * v for v in values])
                base = [known["supervised"][s]["test"] for s in seeds]
                by, width = mean_interval([100 * (v - b) for v, b in zip(values, base, strict=True)])
                shown = "" if method == "supervised" else f"{by:+.1f} ± {width:.1f}"
                took = statistics.median(seconds)
                lines.append(f"| {name} | {len(seeds)} | {mean:.1f} ± {half:.1f} | {shown} | {took:.0f} |")
        lines.append("")
    (HERE / "table.md").write_text("\n".join(lines))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("settings", nargs="*", choices=[*SETTINGS, []], help="default: all")
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--table", action="store_true")
    arguments = parser.parse_args()
    results = load()
    for setting in [] if arguments.table else arguments.settings or SETTINGS:
        choices = {method: chosen_for(setting, method, results) for method in METHODS}
        for seed in range(arguments.seeds):
            for method in METHODS:
                cells = results["cells"].setdefault(f"{setting}/{method}", {})
                if str(seed) in cells:
                    continue
                cells[str(seed)] = train(setting, method, seed, choices[method])
                save(results)
                print(setting, method, seed, cells[str(seed)], flush=True)
    write_table(results)


if __name__ == "__main__":
    main()
