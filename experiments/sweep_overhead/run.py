"""What a search costs beyond the training that it does, with one and two workers and over a thousand trials.

    python experiments/sweep_overhead/run.py                       # about 25 minutes on two quiet cores
    python experiments/sweep_overhead/run.py trial --peer PYTHON   # beside hydra-optuna-sweeper, see README.md

Parts: trial (seconds per trial beyond training), workers (two against one), thousand (time and memory as the study
grows). Results go to results.json and table.md.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
SMALL = [
    "model=mlp",
    "model.hidden=[16]",
    "trainer.max_epochs=1",
    "trainer.batch_size=256",
    "optimizer.lr=tag(log,interval(1e-4,1e-1))",
    "tuner=random",
    "cache=off",
    "hydra.sweeper.confirm=0",
    "hydra.sweeper.plots=false",
]
ONE_THREAD = {**os.environ, "OMP_NUM_THREADS": "1"}
SLEEP = 0.05  # seconds that a trial of the peers takes


def sweep(trials: int, *more: str, watch: Callable[[int], None] | None = None) -> tuple[float, list[dict[str, float]]]:
    """One search: its seconds, and of each trial when it ended, its length and the length of its training."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "bigopt", *SMALL, f"hydra.sweeper.n_trials={trials}", *more]
        started = time.perf_counter()
        process = subprocess.Popen(
            command, cwd=folder, env=ONE_THREAD, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )
        while watch is not None and process.poll() is None:
            watch(process.pid)
            time.sleep(1)
        _, said = process.communicate()
        seconds = time.perf_counter() - started
        if process.returncode:
            raise SystemExit(said)
        (place,) = (Path(folder) / "multirun").iterdir()
        rows = {int(row["number"]): row for row in csv.DictReader((place / "trials.csv").open())}
        storage = optuna.storages.JournalStorage(
            optuna.storages.journal.JournalFileBackend(str(place / "study.journal"))
        )
        study = optuna.load_study(study_name=None, storage=storage)
        found = []
        for trial in study.get_trials(deepcopy=False):
            if trial.datetime_complete is None:
                continue
            fits = json.loads((place / str(trial.number) / "report.json").read_text())["stages"][0]["history"]
            found.append(
                {
                    "start": trial.datetime_start.timestamp(),
                    "end": trial.datetime_complete.timestamp(),
                    "training": sum(fit["seconds"] for fit in fits),
                    "wall": float(rows[trial.number]["wall_seconds"]),
                }
            )
    return seconds, sorted(found, key=lambda one: one["end"])


def beyond(trials: list[dict[str, float]]) -> dict[str, float]:
    """Milliseconds per trial from one trial's end to the next one's, without the training; the first warms up."""
    each = [
        1e3 * (after["end"] - before["end"] - after["training"])
        for before, after in zip(trials, trials[1:], strict=False)
    ]
    return {
        "median": round(statistics.median(each), 1),
        "p90": round(statistics.quantiles(each, n=10)[-1], 1),
        "training": round(1e3 * statistics.median(one["training"] for one in trials[1:]), 1),
    }


def trial(peer: str | None) -> dict[str, Any]:
    """Milliseconds per trial beyond training: bigopt's, with measuring, and what others need around a trial."""
    found: dict[str, Any] = {
        "bigopt": beyond(sweep(60, "tracking=none")[1]),
        "bigopt, MLflow": beyond(sweep(60)[1]),
        "bigopt, exported": beyond(sweep(30, "tracking=none", "objective={val/accuracy:max,bytes:min}")[1]),
        "bigopt, exported and timed": beyond(
            sweep(15, "tracking=none", "objective={val/accuracy:max,speedup.batch_1:max}", "measure.repeats=20")[1]
        ),
        "Study.optimize, journal": by_hand(),
    }
    if peer:
        found["hydra-optuna-sweeper"] = hydra_optuna_sweeper(peer)
    return found


def by_hand() -> dict[str, float]:
    """Optuna alone: the same sampler and storage around a trial that only waits."""
    import optuna

    ends = []

    def objective(one: optuna.Trial) -> float:
        rate = one.suggest_float("lr", 1e-4, 1e-1, log=True)
        time.sleep(SLEEP)
        ends.append(time.perf_counter())
        return rate

    with tempfile.TemporaryDirectory() as folder:
        backend = optuna.storages.journal.JournalFileBackend(f"{folder}/journal")
        study = optuna.create_study(
            storage=optuna.storages.JournalStorage(backend), sampler=optuna.samplers.RandomSampler(seed=0)
        )
        study.optimize(objective, n_trials=60)
    each = [1e3 * (after - before - SLEEP) for before, after in zip(ends, ends[1:], strict=False)]
    return {"median": round(statistics.median(each), 1), "p90": round(statistics.quantiles(each, n=10)[-1], 1)}


def hydra_optuna_sweeper(python: str) -> dict[str, float]:
    """The published sweeper in an environment of its own, around a job that only waits."""
    plain = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}  # it has plugins of its own
    with tempfile.TemporaryDirectory() as folder:
        command = [python, str(HERE / "peer.py"), "--multirun"]
        subprocess.run(command, cwd=folder, env=plain, check=True, stdout=subprocess.DEVNULL)
        ends = [float(line) for line in (Path(folder) / "ends").read_text().split()]
    each = [1e3 * (after - before - SLEEP) for before, after in zip(ends, ends[1:], strict=False)]
    return {"median": round(statistics.median(each), 1), "p90": round(statistics.quantiles(each, n=10)[-1], 1)}


def workers(_peer: str | None) -> dict[str, Any]:
    """Trials per second of one and of two workers, without the start of the program."""
    found = {}
    longer = ["trainer.max_epochs=25", "trainer.batch_size=32", "tracking=none"]
    for jobs in (1, 2, 1, 2):
        _, trials = sweep(24, f"hydra.sweeper.n_jobs={jobs}", *longer)
        span = trials[-1]["end"] - min(one["start"] for one in trials)
        found.setdefault(str(jobs), []).append(round(len(trials) / span, 3))
    rates = {jobs: statistics.mean(values) for jobs, values in found.items()}
    return {"trials_per_second": found, "ratio": round(rates["2"] / rates["1"], 2)}


def thousand(_peer: str | None) -> dict[str, Any]:
    """Length of the first and the last hundred trials, and the worker's memory over the search."""
    import psutil

    memory: list[float] = []

    def watch(pid: int) -> None:
        try:
            children = psutil.Process(pid).children(recursive=True)
            memory.append(max((child.memory_info().rss for child in children), default=0) / 1e6)
        except psutil.NoSuchProcess:
            return

    _, trials = sweep(1000, "tracking=none", "dataset.val=0.4", "dataset.test=0.4", watch=watch)
    gaps = [after["end"] - before["end"] for before, after in zip(trials, trials[1:], strict=False)]
    first, last = statistics.median(gaps[:100]), statistics.median(gaps[-100:])
    steady = [value for value in memory if value]
    early, late = statistics.median(steady[10:30]), statistics.median(steady[-20:])
    return {
        "trials": len(trials),
        "first_100_ms": round(1e3 * first, 1),
        "last_100_ms": round(1e3 * last, 1),
        "slower": round(last / first, 2),
        "memory_mb": [round(early), round(late)],
        "memory": round(late / early, 2),
    }


PARTS = {"trial": trial, "workers": workers, "thousand": thousand}


def table(results: dict[str, Any]) -> str:
    """Markdown."""
    lines = []
    if "trial" in results:
        lines += ["| per trial beyond training, ms | median | 90th percentile |", "|---|---|---|"]
        lines += [f"| {name} | {one['median']:.0f} | {one['p90']:.0f} |" for name, one in results["trial"].items()]
    if "workers" in results:
        lines += ["", f"Two workers against one: {results['workers']['ratio']:.2f}×."]
    if "thousand" in results:
        one = results["thousand"]
        lines += [
            "",
            f"{one['trials']} trials: {one['first_100_ms']:.0f} ms each among the first hundred, "
            f"{one['last_100_ms']:.0f} ms among the last ({one['slower']:.2f}×); memory of the worker "
            f"{one['memory_mb'][0]} MB early, {one['memory_mb'][1]} MB at the end ({one['memory']:.2f}×).",
        ]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], help="default: all")
    parser.add_argument("--peer", help="Python of an environment with hydra-optuna-sweeper")
    chosen = parser.parse_args()
    file = HERE / "results.json"
    results = json.loads(file.read_text()) if file.exists() else {}
    for part in chosen.parts or PARTS:
        results[part] = PARTS[part](chosen.peer)
        print(part, json.dumps(results[part]), flush=True)
        file.write_text(json.dumps(results, indent=1) + "\n")
    (HERE / "table.md").write_text(table(results))
    print(table(results))


if __name__ == "__main__":
    main()
