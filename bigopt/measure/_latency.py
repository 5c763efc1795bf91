"""Latency of files, measured so that two of them can be compared."""

from __future__ import annotations

import gc
import math
import random
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from bigopt.measure.session import Session
from bigopt.store import machine_lock

SHORTEST = 200_000  # ns that one timed measurement should last at least; shorter calls are repeated in it
TOUCHED = 10_000_000  # ns below which a call is made once untimed before it is timed, to warm the caches again
FEWEST = 10  # rounds, however slow the models
LIMIT = 6.0  # seconds for one batch size and model, unless the fewest rounds take longer

Call = Callable[[], object]


@dataclass
class Rounds:
    """What was measured at one batch size.

    Attributes:
        milliseconds: one value per round, by model; values at the same position were measured next to each other.
    """

    milliseconds: dict[str, list[float]] = field(default_factory=dict)

    def percentiles(self, name: str) -> dict[str, float]:
        """Median and 95th percentile, in milliseconds."""
        values = torch.tensor(self.milliseconds[name], dtype=torch.float64)
        return {"p50": float(values.quantile(0.5)), "p95": float(values.quantile(0.95))}

    def speedup(self, name: str, baseline: str) -> float:
        """How many times faster than the baseline: median over the rounds of the ratio within a round.

        Load and frequency change over seconds, a round takes milliseconds: most of that cancels in the ratio.
        """
        pairs = zip(self.milliseconds[baseline], self.milliseconds[name], strict=True)
        return statistics.median(before / after for before, after in pairs)


def latency(
    models: Mapping[str, Path],
    example: Tensor,
    batches: Sequence[int] = (1, 256),
    threads: int = 1,
    repeats: int = 50,
    warmup: int = 5,
) -> dict[str, dict[int, dict[str, float]]]:
    """Median and 95th percentile of each file's latency, in milliseconds, as ``{name: {batch: {p50, p95}}}``.

    See :func:`latency_rounds`.
    """
    measured = latency_rounds(models, example, batches, threads, repeats, warmup)
    return {name: {batch: rounds.percentiles(name) for batch, rounds in measured.items()} for name in models}


def latency_rounds(
    models: Mapping[str, Path],
    example: Tensor,
    batches: Sequence[int] = (1, 256),
    threads: int = 1,
    repeats: int = 50,
    warmup: int = 5,
    *,
    limit: float = LIMIT,
    seed: int = 0,
) -> dict[int, Rounds]:
    """Times files in one process, in turn, while no other bigopt run of this machine measures.

    Args:
        models: ONNX files by name.
        example: inputs ``(N, …)``, repeated or cut to each batch size.
        batches: batch sizes.
        threads: of ONNX Runtime.
        repeats: timed rounds; each times every model once.
        warmup: untimed calls of each model before; slow ones get fewer.
        limit: seconds that a model may take at one batch size; slow ones get fewer rounds, though at least 10.
        seed: of the order within each round.

    Returns:
        the rounds by batch size. A value is the mean over as many calls as make a measurement of 0.2 ms.

    Raises:
        RunFailed: ONNX Runtime cannot load a file.
    """
    sessions = {name: Session(path, threads) for name, path in models.items()}
    measured = {}
    with machine_lock("latency"):
        for batch in batches:
            x = Session.array(rows_of(example, batch))
            calls: dict[str, Call] = {name: _call(session, x) for name, session in sessions.items()}
            measured[batch] = time_rounds(calls, repeats, warmup, limit=limit, seed=seed)
    return measured


def time_rounds(
    calls: Mapping[str, Call],
    repeats: int,
    warmup: int,
    *,
    limit: float = LIMIT,
    seed: int = 0,
    clock: Callable[[], int] = time.perf_counter_ns,
) -> Rounds:
    """Times calls in interleaved rounds, each in a new random order, with the garbage collector off.

    Args:
        calls: what to time, by name.
        repeats: rounds.
        warmup: untimed calls of each before; at least one is made.
        limit: seconds that one of the calls may take over all rounds.
        seed: of the orders.
        clock: nanoseconds.
    """
    order = list(calls)
    shuffle = random.Random(seed).shuffle
    rounds = Rounds({name: [] for name in calls})
    with _no_collector():
        cost = {name: _warm(call, warmup, limit, clock) for name, call in calls.items()}
        inner = {name: max(1, math.ceil(SHORTEST / max(cost[name], 1))) for name in calls}
        for _ in range(_affordable(repeats, limit, cost, inner)):
            shuffle(order)
            for name in order:
                if cost[name] < TOUCHED:
                    calls[name]()
                rounds.milliseconds[name].append(_time(calls[name], inner[name], clock) / 1e6)
    return rounds


def rows_of(example: Tensor, rows: int) -> Tensor:
    """The example's samples, repeated or cut to this many."""
    return example.repeat((math.ceil(rows / len(example)), *(1 for _ in example.shape[1:])))[:rows]


def _call(session: Session, x: object) -> Call:
    run, feed = session.onnx.run, {session.input: x}
    return lambda: run(None, feed)


def _warm(call: Call, warmup: int, limit: float, clock: Callable[[], int]) -> float:
    """Makes the untimed calls, for a tenth of the limit at most; gives the nanoseconds of the fastest."""
    end = clock() + limit * 1e8
    fastest = _time(call, 1, clock)
    for _ in range(warmup - 1):
        if clock() > end:
            break
        fastest = min(fastest, _time(call, 1, clock))
    return fastest


def _time(call: Call, times: int, clock: Callable[[], int]) -> float:
    start = clock()
    for _ in range(times):
        call()
    return (clock() - start) / times


def _affordable(repeats: int, limit: float, cost: Mapping[str, float], inner: Mapping[str, int]) -> int:
    """Rounds that keep the slowest model under the limit, though not fewer than the fewest."""
    slowest = max((cost[name] * inner[name] for name in cost), default=0.0)
    within = int(limit * 1e9 / slowest) if slowest else repeats
    return min(repeats, max(FEWEST, within))


@contextmanager
def _no_collector() -> Iterator[None]:
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
