"""How many workers can one study feed? Real storages under a simulated clock that replays recorded learning curves.

    python experiments/scale_simulation/run.py        # about a quarter of an hour; PostgreSQL where Debian's package is

Every operation of the search (asking, reporting, looking whether to stop, telling) is really carried out on the storage
and timed; training only moves the simulated clock. Asking and writing wait for each other, as they do behind the
study's lock; reading what others wrote does not.
"""

from __future__ import annotations

import argparse
import heapq
import json
import os
import sys
import tempfile
import time
import warnings
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import TrialState
from servers import postgresql, proxy

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "search_fashion_mnist"))

WORKERS = (1, 10, 100, 1000)
STORAGES = ("in memory", "journal", "sqlite", "postgresql", "grpc")
EPOCH_SECONDS = 30.0
"""What one epoch is stretched to on average: the curves are those of tiny models."""
TRIALS_PER_WORKER = 3
PATIENCE = 40.0
"""Real seconds after which a cell ends; its efficiency is that of the time simulated by then."""


class Clock:
    """Simulated time; operations take their real time, one after the other where they share a lock."""

    def __init__(self) -> None:
        self.free: dict[str, float] = defaultdict(float)
        self.cost: dict[str, list[float]] = defaultdict(list)

    def run(self, now: float, name: str, lock: str | None, work: Any) -> tuple[float, Any]:
        """Carries out an operation that a worker wants at ``now``; gives when it is through, and its result."""
        begin = max(now, self.free[lock]) if lock else now
        start = time.perf_counter()
        result = work()
        seconds = time.perf_counter() - start
        self.cost[name].append(seconds)
        if lock:
            self.free[lock] = begin + seconds
        return begin + seconds, result


def simulate(storage: Any, workers: int, tuner: Any, table: Any) -> dict[str, Any]:
    """One study with so many workers; efficiency is the share of their time that is spent training."""
    study = optuna.create_study(
        storage=storage,
        study_name=f"scale-{workers}",
        direction="maximize",
        pruner=tuner.pruner,
        sampler=tuner.sampler(0),
    )
    mean = sum(sum(seconds) for _, seconds in table.curves.values()) / sum(len(s) for _, s in table.curves.values())
    stretch = EPOCH_SECONDS / mean
    clock, wanted, asked, trained, began = Clock(), TRIALS_PER_WORKER * workers, 0, 0.0, time.perf_counter()
    spans: list[tuple[float, float]] = []
    queue: list[tuple[float, int, Any, int]] = [(0.0, worker, None, 0) for worker in range(workers)]
    now = 0.0
    while queue and time.perf_counter() - began < PATIENCE:
        now, worker, trial, epoch = heapq.heappop(queue)
        if trial is not None:
            values, seconds = table.at(trial.params)
            at, _ = clock.run(now, "report", "write", lambda t=trial, v=values, e=epoch: t.report(v[e - 1], e))
            at, stop = clock.run(at, "should_prune", None, trial.should_prune)
            if epoch < table.full and not stop:
                heapq.heappush(queue, begun(at, seconds[epoch] * stretch, worker, trial, epoch + 1, spans))
                continue
            state = TrialState.PRUNED if stop and epoch < table.full else TrialState.COMPLETE
            value = None if state is TrialState.PRUNED else max(values)
            now, _ = clock.run(at, "tell", "write", lambda t=trial, v=value, s=state: study.tell(t, v, state=s))
        if asked == wanted:
            break  # what follows is only the end of the study
        study.sampler = tuner.sampler(asked)
        asked += 1
        at, trial = clock.run(now, "ask", "turn", lambda: study.ask(table.space))
        seconds = table.at(trial.params)[1]
        heapq.heappush(queue, begun(at, seconds[0] * stretch, worker, trial, 1, spans))
    trained = sum(max(0.0, min(end, now) - start) for start, end in spans)
    return {
        "workers": workers,
        "trials": asked,
        "simulated_seconds": round(now, 1),
        "efficiency": round(trained / (workers * now), 4) if now > EPOCH_SECONDS else None,
        "milliseconds": {
            name: {"mean": round(1e3 * sum(each) / len(each), 3), "last": round(1e3 * median(each[-50:]), 3)}
            for name, each in sorted(clock.cost.items())
        },
    }


def begun(
    at: float, seconds: float, worker: int, trial: Any, epoch: int, spans: list[tuple[float, float]]
) -> tuple[float, int, Any, int]:
    """The event at the end of an epoch."""
    spans.append((at, at + seconds))
    return at + seconds, worker, trial, epoch


def median(values: list[float]) -> float:
    return sorted(values)[len(values) // 2]


@contextmanager
def opened(kind: str) -> Iterator[Any]:
    """A fresh storage of a kind as bigopt opens it; None where it cannot be had here."""
    from bigopt.search.storage import Storage

    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        where = Path(folder)
        if kind == "in memory":
            yield optuna.storages.InMemoryStorage()
            return
        url: str | None = {"journal": f"{folder}/study.journal", "sqlite": f"sqlite:///{folder}/study.db"}.get(kind)
        if kind == "postgresql":
            url = stack.enter_context(postgresql())
        if kind == "grpc":
            url = stack.enter_context(proxy(folder))
        yield None if url is None else Storage.of(url, where).open()


def main() -> None:
    from replay import read

    from bigopt import registry
    from bigopt.store import write_atomic

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dataset", default="digits")
    parser.add_argument("--storages", nargs="*", default=list(STORAGES), choices=STORAGES)
    parser.add_argument("--workers", type=int, nargs="*", default=list(WORKERS))
    asked = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore")
    table = read(asked.dataset)
    tuner = registry.build("tuners", "random", {"pruner": "successive_halving"}, {"seed": 0, "directions": ["max"]})
    file = HERE / "results.json"
    results: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {}
    results = {"epoch_seconds": EPOCH_SECONDS, "cores": os.cpu_count(), "storages": results.get("storages", {})}
    for kind in asked.storages:
        cells = results["storages"][kind] = []
        for workers in asked.workers:
            with opened(kind) as storage:
                if storage is None:
                    print(f"{kind}: not installed, left out", flush=True)
                    break
                cells.append(simulate(storage, workers, tuner, table))
            print(kind, cells[-1], flush=True)
    write_atomic(file, (json.dumps(results, indent=1) + "\n").encode())
    write_atomic(HERE / "table.md", "\n".join(lines(results)).encode())


def lines(results: dict[str, Any]) -> list[str]:
    """A table in Markdown."""
    out = [
        "| storage | workers | trials | efficiency | ask, ms | report, ms | should_prune, ms | tell, ms |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for kind, cells in results["storages"].items():
        for cell in cells:
            cost = cell["milliseconds"]
            shown = " | ".join(f"{cost[name]['last']:.1f}" if name in cost else "–" for name in OPERATIONS)
            efficiency = "–" if cell["efficiency"] is None else f"{cell['efficiency']:.3f}"
            out.append(f"| {kind} | {cell['workers']} | {cell['trials']} | {efficiency} | {shown} |")
    return [*out, ""]


OPERATIONS = ("ask", "report", "should_prune", "tell")


if __name__ == "__main__":
    main()
