"""Domain adaptation from mnist5k to digits at 8×8 pixels: every method, every label-free choice of the epoch.

    python experiments/transfer_digits/run.py                # 10 splits, about 20 minutes on one thread
    python experiments/transfer_digits/run.py --splits 2     # a look

A started run goes on where it was. Writes results.json and table.md beside this file.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bigopt import registry
from bigopt.pipeline.build import Builder
from bigopt.pipeline.relay import Relay
from bigopt.report.interval import mean_interval
from bigopt.train import Fitter, predict, seed_all
from bigopt.vocabulary.batch import Batch
from bigopt.vocabulary.data import Data
from bigopt.vocabulary.network import Network
from bigopt.vocabulary.objective import Monitor
from bigopt.vocabulary.part import Part
from bigopt.vocabulary.run import Run, Silent
from bigopt.vocabulary.settings import Optimizer, Scheduler, Settings, Trainer
from bigopt.vocabulary.task import Task
from bigopt_plugins.transfer.domain_adaptation._judging import dev_risk
from bigopt_plugins.transfer.domain_adaptation._shot import information
from bigopt_plugins.transfer.domain_adaptation._snd import soft_neighbourhood_density
from bigopt_plugins.transfer.domain_adaptation.plugin import WEIGHTS, DomainAdaptation

HERE = Path(__file__).parent
SPLITS = 10
EPOCHS = {"full": 16, "tail": 24}
IMBALANCE = 50.0
BATCH = 256
WEIGHTED = ("dann", "cdan", "dan", "deep_coral", "mcc", "shot")
METHODS = ("source_only", "adabn", *WEIGHTED)
TAIL: dict[str, tuple[str, dict[str, str]]] = {
    **{method: (method, {}) for method in ("source_only", "dan", "mcc", "shot")},
    **{f"{method} + balanced": (method, {"sampling": "balanced"}) for method in ("source_only", "dan", "mcc", "shot")},
    **{f"{method} + bbse": (method, {"label_shift": "bbse"}) for method in ("source_only", "mcc")},
}
CHOICES = {
    "source": ("val/accuracy", 1),
    "information": ("information", 1),
    "snd": ("snd", 1),
    "dev": ("dev", -1),
    "last": ("epoch", 1),
}
DEFAULT = "information"
"""The plugin's own choice, by which differences are shown."""


class SmallCNN(nn.Module):
    """Three convolutions with batch norm, pooled twice; 9,694 parameters on 8×8 images."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(1, 12, 3, padding=1, bias=False),
            nn.BatchNorm2d(12),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(12, 24, 3, padding=1, bias=False),
            nn.BatchNorm2d(24),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(24, 64, 2, bias=False),
            nn.BatchNorm2d(64),
            nn.ReLU(),
            nn.Flatten(),
        )
        self.head = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Logits ``(N, 10)`` of ``(N, 1, 8, 8)``."""
        logits: Tensor = self.head(self.body(x))
        return logits


SOURCES: dict[int, Data] = {}
"""The source by split: read once, not for every method."""


class Small(Builder):
    """Builds every model as a :class:`SmallCNN`."""

    def dataset(self, spec: Any, path: str = "dataset") -> Data:
        """The source's dataset."""
        if self.seed not in SOURCES:
            SOURCES.clear()
            SOURCES[self.seed] = super().dataset(spec, path)
        return SOURCES[self.seed]

    def model(self, spec: Any, data: Data, path: str = "model", **_: Any) -> nn.Module:
        """A fresh network, whatever is asked for."""
        seed_all(self.seed, 0)
        return Network.for_data(SmallCNN(), data)


class Shift(Part):
    """Moves every training image by up to one pixel: MNIST's digits sit less exactly than the target's."""

    def batch(self, run: Run, batch: Batch) -> Batch:
        """The batch with its images moved; what leaves the image is lost, zeros come in."""
        padded = torch.nn.functional.pad(batch.x, (1, 1, 1, 1))
        place = torch.randint(9, (len(batch.x),))
        moved = torch.empty_like(batch.x)
        height, width = batch.x.shape[2:]
        for way in range(9):
            rows, (down, right) = place == way, divmod(way, 3)
            moved[rows] = padded[rows, :, down : down + height, right : right + width]
        return batch.with_(x=moved)


class Watch(Part):
    """Keeps every epoch's weights and the values by which one could be chosen; none reads a target label."""

    def __init__(self, part: DomainAdaptation) -> None:
        self.part = part
        self.epochs: list[dict[str, float]] = []
        self.states: list[dict[str, Tensor]] = []

    def callbacks(self, run: Run) -> list[Any]:
        """Looks at the end of every epoch."""
        from pytorch_lightning.callbacks import Callback

        watch = self

        class Keep(Callback):
            def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
                watch.see(run, float(pl_module.values["val/accuracy"]))

        return [Keep()]

    def see(self, run: Run, accuracy: float) -> None:
        """Takes in an epoch."""
        target = self.part._target
        assert target is not None
        logits = predict(run.model, target.held_out)
        values = {
            "epoch": float(len(self.epochs) + 1),
            "val/accuracy": accuracy,
            "information": -information(logits).item(),
            "snd": soft_neighbourhood_density(logits),
            "dev": dev_risk(run.model, self.part._head, run.data.train, run.data.val, target.pool),
        }
        self.epochs.append(values)
        self.states.append({name: value.clone() for name, value in run.model.state_dict().items()})

    def chosen(self, choice: str) -> int:
        """Position of the epoch with the best value, the first of equals."""
        name, sign = CHOICES[choice]
        scores = [sign * row[name] for row in self.epochs]
        return scores.index(max(scores))


def settings(epochs: int) -> Settings:
    return Settings(
        trainer=Trainer(
            max_epochs=epochs, batch_size=BATCH, precision="fp32", compile="off", channels_last="off", accelerator="cpu"
        ),
        optimizer=Optimizer(lr=5e-3),
        scheduler=Scheduler(warmup=0.1),
        extra={"model": {"name": "mlp"}, "dataset": {"name": "digits"}},
    )


def start(split: int, epochs: int, folder: str) -> tuple[Run, Any]:
    data = registry.build("datasets", "digits", {}, {"seed": split})
    build = Small(split)
    run = Run(
        model=build.model("small", data),
        data=data,
        task=Task.of(data.schema),
        monitor=Monitor("val/accuracy", "max"),
        settings=settings(epochs),
        folder=Path(folder),
        seed=split,
        build=build,
        report=Silent(),
        progress=Relay(None, lambda *_: None),
    )
    return run, Fitter(Path(folder))


def adapt(split: int, source: str, method: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """One training; the test split is read once for each choice of the epoch, after all choices are made."""
    began = time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        run, fit = start(split, EPOCHS[source], folder)
        spec: dict[str, Any] = {"dataset": {"name": "mnist5k", "size": 8}}
        if source == "tail":
            spec["imbalance"] = IMBALANCE
        part = DomainAdaptation(method=method, source=spec, selection="source", **arguments)  # type: ignore[arg-type]
        watch = Watch(part)
        run.parts = [part]
        part.prepare(run, fit)
        fit(run, name="baseline", parts=[part, Shift(), watch])
        places = {choice: watch.chosen(choice) for choice in CHOICES}
        result: dict[str, Any] = {"method": method, **arguments}
        result["chosen"] = {choice: watch.epochs[place] for choice, place in places.items()}
        test = run.data.read_test()
        right: dict[int, float] = {}
        for place in sorted(set(places.values())):
            run.model.load_state_dict(watch.states[place])
            right[place] = (predict(run.model, test).argmax(1) == test.y).double().mean().item()
        result["test"] = {choice: right[place] for choice, place in places.items()}
        result["terms"] = {name: value for name, value in run.history[-1].epochs[-1].items() if "seconds" not in name}
    result["seconds"] = time.process_time() - began
    shown = ", ".join(f"{choice} {value:.3f}" for choice, value in result["test"].items())
    print(
        f"  {source} {split} {method} {' '.join(arguments.values())} ({result['seconds']:.1f} s): {shown}", flush=True
    )
    return result


def supervised(split: int) -> dict[str, Any]:
    """The same net on the target's own labels, its epoch chosen on the target's validation split."""
    with tempfile.TemporaryDirectory() as folder:
        run, fit = start(split, 3 * EPOCHS["full"], folder)
        fit(run, name="baseline", parts=[Shift()])
        test = run.data.read_test()
        right = (predict(run.model, test).argmax(1) == test.y).double().mean().item()
    return {"method": "target_supervised", "test": dict.fromkeys(CHOICES, right)}


def jobs(source: str) -> dict[str, Callable[[int], dict[str, Any]]]:
    """What is trained on every split, by its row's name."""
    if source == "tail":
        return {
            name: partial(adapt, source=source, method=method, arguments=more) for name, (method, more) in TAIL.items()
        }
    plain: dict[str, Callable[[int], dict[str, Any]]] = {
        name: partial(adapt, source=source, method=name, arguments={}) for name in METHODS
    }
    return {**plain, "target_supervised": supervised}


def difference(ours: list[float], theirs: list[float]) -> dict[str, Any]:
    """Mean paired difference with its 95% t-interval over splits."""
    gaps = [a - b for a, b in zip(ours, theirs, strict=True)]
    mean, half = mean_interval(gaps)
    return {"mean": mean, "interval": [mean - half, mean + half], "wins": sum(gap > 0 for gap in gaps), "gaps": gaps}


def summary(splits: Mapping[str, Any]) -> dict[str, Any]:
    """Means and paired differences; ``best by …`` takes in every split the method with the best score."""
    names = list(next(iter(splits.values())))
    rows = {name: [one[name] for one in splits.values()] for name in names}
    reference = [one["test"]["source"] for one in rows["source_only"]]
    adapted = [name for name in names if name != "target_supervised"]
    for choice in ("information", "snd", "dev"):
        value, sign = CHOICES[choice]
        picked = [
            max(adapted, key=lambda name, one=one: sign * one[name]["chosen"][choice][value])  # type: ignore[misc]  # noqa: B023
            for one in splits.values()
        ]
        rows[f"best by {choice}"] = [
            {"test": dict.fromkeys(CHOICES, one[name]["test"][choice]), "picked": name}
            for one, name in zip(splits.values(), picked, strict=True)
        ]
    return {
        name: {
            "test": {choice: statistics.mean(one["test"][choice] for one in ones) for choice in CHOICES},
            "over_source_only": {
                choice: difference([one["test"][choice] for one in ones], reference) for choice in CHOICES
            },
            **({"picked": [one["picked"] for one in ones]} if "picked" in ones[0] else {}),
        }
        for name, ones in rows.items()
    }


def table(found: Mapping[str, Any]) -> str:
    lines = []
    titles = {"full": "mnist5k → digits", "tail": f"long-tailed mnist5k ({IMBALANCE:g}:1) → digits"}
    for source, rows in found["summary"].items():
        count = len(row["over_source_only"]["snd"]["gaps"]) if (row := rows.get("source_only")) else 0
        lines += [f"## {titles[source]}, {count} splits", ""]
        lines += [
            "| method | epoch by source | by information | by SND | by DEV | last | over source-only | better in |"
        ]
        lines += ["|---|---|---|---|---|---|---|---|"]
        for name, row in rows.items():
            test, gap = row["test"], row["over_source_only"][DEFAULT]
            low, high = gap["interval"]
            cells = " | ".join(f"{test[choice]:.3f}" for choice in CHOICES)
            lines.append(f"| {name} | {cells} | {gap['mean']:+.3f} [{low:+.3f}, {high:+.3f}] | {gap['wins']}/{count} |")
        lines.append("")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--splits", type=int, default=SPLITS)
    parser.add_argument("--out", type=Path, default=HERE)
    given = parser.parse_args()
    torch.set_num_threads(1)
    file = given.out / "results.json"
    config = {"epochs": EPOCHS, "imbalance": IMBALANCE, "weights": WEIGHTS, "tail": sorted(TAIL)}
    found: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {}
    if found.get("config") != config:
        found = {"config": config, "splits": {}, "summary": {}}
    for source in EPOCHS:
        known, work = found["splits"].setdefault(source, {}), jobs(source)
        for split in range(given.splits):
            done = known.setdefault(str(split), {})
            for name in [name for name in work if name not in done]:
                done[name] = work[name](split)
                file.write_text(json.dumps(found, indent=1) + "\n")
            complete = {key: one for key, one in known.items() if len(one) == len(work)}
            found["summary"][source] = summary(complete)
            file.write_text(json.dumps(found, indent=1) + "\n")
            (given.out / "table.md").write_text(table(found))
    print(table(found))


if __name__ == "__main__":
    main()
