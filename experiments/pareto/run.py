"""Accuracy, bytes and latency searched together: pruning ratio × bits × width, against random search at equal budget.

    python experiments/pareto/run.py record digits           # every point of the grid once, in this process
    python experiments/pareto/run.py record fashion_mnist
    python experiments/pareto/run.py replay                  # searches on the recorded points, table.md and pareto.png

A point is one whole run: training (shared by all points of a width through the stage cache), pruning with recovery,
quantization, export, latency. Searches then look points up, with many seeds; what they find is judged by hypervolume.
Recording goes on where it stopped.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import statistics
import sys
import warnings
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))
from command import report_of  # noqa: E402

GRID: dict[str, list[Any]] = {
    "width": [8, 12, 16, 24, 32],
    "ratio": [0.0, 0.25, 0.375, 0.5, 0.625, 0.75],
    "bits": [32, 8, 4, 2],
}
DATA = {
    "digits": ["dataset.val=0.4", "dataset.test=0.1", "trainer.max_epochs=10"],
    "fashion_mnist": ["dataset.limit=2000", "dataset.val=0.05", "trainer.max_epochs=6"],
}
BUDGET, SEEDS = 30, 20
METHODS: dict[str, tuple[str, dict[str, Any]]] = {
    "random": ("random", {}),
    "TPE": ("bayesian", {}),
    "GP": ("bayesian", {"method": "gp"}),
    "NSGA-II": ("nsga2", {"population": 10}),
}
WORST = {"accuracy": 0.5, "bytes": 1.5e6, "latency": 2.0}
"""The corner from which volume is measured: accuracy, log of the bytes, log of the latency against width 32."""


def path(dataset: str) -> Path:
    return HERE / f"{dataset}.jsonl"


def points(dataset: str) -> dict[tuple[Any, ...], dict[str, float]]:
    """What is recorded, by width, ratio and bits."""
    lines = path(dataset).read_text().splitlines() if path(dataset).is_file() else []
    return {tuple(one["point"]): one for one in map(json.loads, lines)}


def record(dataset: str) -> None:
    """Runs every point that is not there yet."""
    known = points(dataset)
    cache = Path(".bigopt/pareto").resolve()
    for point in itertools.product(*GRID.values()):
        if point in known:
            continue
        width, ratio, bits = point
        steps = (["channel_pruning"] if ratio else []) + (["quantization"] if bits < 32 else [])
        words = [
            "model=resnet",
            f"model.width={width}",
            f"dataset={dataset}",
            *DATA[dataset],
            "trainer.batch_size=64",
            "trainer.compile=off",
            "optimizer.lr=3e-3",
            "tracking=none",
            f"cache={cache}",
            "measure.large_batch=64",
            "measure.repeats=15",
            f"compression=[{','.join(steps)}]",
        ]
        if ratio:
            words += [f"compression.channel_pruning.ratio={ratio}", "compression.channel_pruning.recover.epochs=3"]
        if bits < 32:
            words += [f"compression.quantization.bits={bits}"]
        if bits < 8:
            words += ["compression.quantization.mode=qat", "compression.quantization.recover.epochs=3"]
            words += ["compression.quantization.activation_bits=8"]
        last = report_of(words)["stages"][-1]
        found = {
            "point": point,
            "accuracy": last["metrics"]["val/accuracy"],
            "bytes": last["bytes"],
            "latency": last["latency_ms"]["batch_1"]["p50"],
            "baseline": last["latency_ms"]["batch_1"]["p50"] * last["speedup"]["batch_1"],
        }
        with path(dataset).open("a") as out:
            out.write(json.dumps(found) + "\n")
        print(found, flush=True)


def values(table: dict[tuple[Any, ...], dict[str, float]]) -> dict[tuple[Any, ...], tuple[float, float, float]]:
    """Accuracy (up), log2 bytes (down) and log2 latency (down); latencies relative to the widest uncompressed net.

    Within a width all latencies are paired with that width's baseline; widths are joined by these baselines.
    """
    base = {
        width: statistics.median(one["baseline"] for key, one in table.items() if key[0] == width)
        for width in {key[0] for key in table}
    }
    top = base[max(base)]
    return {
        key: (
            one["accuracy"],
            math.log2(one["bytes"]),
            math.log2(one["latency"] / one["baseline"] * base[key[0]] / top),
        )
        for key, one in table.items()
    }


def volume(found: list[tuple[float, float, float]]) -> float:
    """Hypervolume above the worst corner."""
    import numpy as np
    from optuna._hypervolume import compute_hypervolume

    corner = np.array([-WORST["accuracy"], math.log2(WORST["bytes"]), math.log2(WORST["latency"])])
    losses = np.array([[-accuracy, size, latency] for accuracy, size, latency in found])
    inside = losses[(losses < corner).all(axis=1)]
    return float(compute_hypervolume(inside, corner)) if len(inside) else 0.0


def search(name: str, seed: int, known: dict[tuple[Any, ...], tuple[float, float, float]]) -> list[float]:
    """Hypervolume after each trial."""
    import optuna

    from bigopt import registry

    plugin, arguments = METHODS[name]
    directions = ["max", "min", "min"]
    tuner = registry.build("tuners", plugin, arguments, {"seed": seed, "directions": directions, "n_trials": BUDGET})
    study = optuna.create_study(directions=["maximize", "minimize", "minimize"])
    space = {key: optuna.distributions.IntDistribution(0, len(choices) - 1) for key, choices in GRID.items()}
    found: list[tuple[float, float, float]] = []
    volumes = []
    for number in range(BUDGET):
        study.sampler = tuner.sampler(number)
        trial = study.ask(space)
        point = tuple(GRID[key][trial.params[key]] for key in GRID)
        found.append(known[point])
        study.tell(trial, known[point])
        volumes.append(volume(found))
    return volumes


def replay() -> None:
    """Searches on everything that is recorded, and writes results.json, table.md and pareto.png."""
    import optuna

    from bigopt.report.interval import mean_interval
    from bigopt.store import write_json

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore")
    results: dict[str, Any] = {}
    whole = math.prod(map(len, GRID.values()))
    for dataset in DATA:
        table = points(dataset)
        if len(table) < whole:
            print(f"{dataset}: {len(table)} of {whole} points are recorded, left out")
            continue
        known = values(table)
        best = volume(list(known.values()))
        results[dataset] = {
            name: [[one / best for one in search(name, seed, known)] for seed in range(SEEDS)] for name in METHODS
        }
    lines = [
        f"| data | search | hypervolume after {BUDGET // 2} trials, % of the whole grid's | after {BUDGET} | "
        "against random, points |",
        "|---|---|---|---|---|",
    ]
    for dataset, by in results.items():
        for name, curves in by.items():
            cells = []
            for at in (BUDGET // 2, BUDGET):
                mean, half = mean_interval([100 * curve[at - 1] for curve in curves])
                cells.append(f"{mean:.1f} ± {half:.1f}")
            ahead = [100 * (curve[-1] - other[-1]) for curve, other in zip(curves, by["random"], strict=True)]
            mean, half = mean_interval(ahead)
            cells.append("" if name == "random" else f"{mean:+.1f} ± {half:.1f}")
            lines.append(f"| {dataset} | {name} | " + " | ".join(cells) + " |")
    (HERE / "table.md").write_text("\n".join(lines) + "\n")
    write_json(HERE / "results.json", results)
    picture(results)
    print("\n".join(lines))


def picture(results: dict[str, Any]) -> None:
    """Hypervolume over trials, and the points with the front in front."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    from bigopt.report.theme import ACCENT, CONTROL, RC, SERIES, tidy

    with plt.rc_context(RC):
        figure, panels = plt.subplots(len(results), 2, figsize=(10.5, 4 * len(results)), squeeze=False)
        for (left, right), (dataset, by) in zip(panels, results.items(), strict=True):
            for number, (name, curves) in enumerate(by.items()):
                middle = [100 * statistics.mean(column) for column in zip(*curves, strict=True)]
                left.plot(range(1, BUDGET + 1), middle, label=name, color=SERIES[number])
            left.set_xlabel("trials")
            left.set_ylabel(f"{dataset}: hypervolume, % of the grid's")
            left.legend()
            table = points(dataset)
            known = list(values(table).values())
            front = [one for one in known if not any(better(other, one) for other in known)]
            for chosen, colour, label in ((known, CONTROL, "all"), (front, ACCENT, "on the front (with latency)")):
                right.scatter(
                    [2 ** one[1] for one in chosen], [100 * one[0] for one in chosen], 14, colour, label=label
                )
            right.set_xscale("log")
            right.set_xticks([1e4, 1e5, 1e6], ["10 KB", "100 KB", "1 MB"])
            right.set_xlabel("ONNX file")
            right.set_ylabel("validation accuracy, %")
            right.legend()
            tidy(left)
            tidy(right)
        figure.tight_layout()
        figure.savefig(HERE / "pareto.png", dpi=130)
        plt.close(figure)


def better(a: tuple[float, float, float], b: tuple[float, float, float]) -> bool:
    """Whether a dominates b."""
    return a != b and a[0] >= b[0] and a[1] <= b[1] and a[2] <= b[2]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("what", choices=["record", "replay"])
    parser.add_argument("dataset", nargs="?", choices=list(DATA))
    chosen = parser.parse_args()
    if chosen.what == "replay":
        replay()
    else:
        for dataset in [chosen.dataset] if chosen.dataset else DATA:
            record(dataset)


if __name__ == "__main__":
    main()
