from __future__ import annotations

import gc
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from bigopt.measure import _latency, latency, latency_rounds, time_rounds
from bigopt.measure._latency import rows_of

MS = 1_000_000


class World:
    """A clock that only moves when something runs; ``load`` says how much slower things are at a time."""

    def __init__(self, load: Callable[[float], float] = lambda now: 1.0) -> None:
        self.now = 0.0
        self.load = load
        self.ran: list[str] = []

    def clock(self) -> int:
        return round(self.now)

    def call(self, name: str, cost: float) -> Callable[[], None]:
        def run() -> None:
            self.ran.append(name)
            self.now += cost * self.load(self.now)

        return run


def test_each_round_runs_every_model_in_changing_order() -> None:
    world = World()
    calls = {name: world.call(name, 20 * MS) for name in "abc"}  # too slow to be touched before timing
    rounds = time_rounds(calls, repeats=30, warmup=2, clock=world.clock, limit=100)
    timed = world.ran[3 * 2 :]
    orders = ["".join(timed[place : place + 3]) for place in range(0, len(timed), 3)]
    assert len(orders) == 30 and {"".join(sorted(order)) for order in orders} == {"abc"}
    assert len(set(orders)) > 3 and all(count >= 4 for count in Counter(order[0] for order in orders).values())
    assert {len(values) for values in rounds.milliseconds.values()} == {30}
    again = World()
    time_rounds({name: again.call(name, 20 * MS) for name in "abc"}, repeats=30, warmup=2, clock=again.clock, limit=100)
    assert again.ran == world.ran


def test_the_paired_ratio_survives_drift() -> None:
    """The machine gets four times slower while it measures: the ratio of two models does not care."""
    total = 2 * 60 * 1.5 * MS * 2.5
    world = World(lambda now: 1 + 3 * min(1.0, now / total))
    calls = {"baseline": world.call("baseline", 2 * MS), "small": world.call("small", 1 * MS)}
    rounds = time_rounds(calls, repeats=60, warmup=1, clock=world.clock)
    first, last = rounds.milliseconds["baseline"][0], rounds.milliseconds["baseline"][-1]
    assert last > 2.5 * first
    assert rounds.speedup("small", "baseline") == pytest.approx(2.0, rel=0.02)
    assert rounds.speedup("baseline", "baseline") == 1.0
    early, late = rounds.milliseconds["baseline"][:30], rounds.milliseconds["small"][30:]
    assert sum(early) / sum(late) < 1.6  # one after the other would have been far off


def test_the_paired_ratio_survives_single_disturbances() -> None:
    world = World(lambda now: 50.0 if int(now / MS) % 17 == 0 else 1.0)
    calls = {"baseline": world.call("baseline", 3 * MS), "small": world.call("small", 1 * MS)}
    assert time_rounds(calls, 50, 1, clock=world.clock).speedup("small", "baseline") == pytest.approx(3.0)


def test_fast_calls_are_repeated_within_a_measurement() -> None:
    world = World()
    rounds = time_rounds({"fast": world.call("fast", 10_000)}, repeats=12, warmup=3, clock=world.clock)
    assert len(world.ran) == 3 + 12 * (1 + 20)  # 20 calls of 10 µs are 200 µs; one more warms the caches
    assert rounds.milliseconds["fast"] == pytest.approx([0.01] * 12)


@pytest.mark.parametrize(("cost", "expected"), [(1000 * MS, 10), (300 * MS, 20), (20 * MS, 50)])
def test_slow_models_get_fewer_rounds(cost: float, expected: int) -> None:
    world = World()
    calls = {"slow": world.call("slow", cost), "fast": world.call("fast", 20 * MS)}
    rounds = time_rounds(calls, repeats=50, warmup=1, clock=world.clock, limit=6.0)
    assert {len(values) for values in rounds.milliseconds.values()} == {expected}


def test_slow_models_are_not_warmed_for_ever() -> None:
    world = World()
    time_rounds({"slow": world.call("slow", 400 * MS)}, repeats=1, warmup=20, clock=world.clock, limit=6.0)
    assert len(world.ran) == 2 + 1  # 0.6 s are over within the second call


def test_few_asked_rounds_stay_few() -> None:
    world = World()
    rounds = time_rounds({"slow": world.call("slow", 1000 * MS)}, repeats=3, warmup=0, clock=world.clock)
    assert rounds.milliseconds["slow"] == [1000.0] * 3


def test_percentiles() -> None:
    world = World()
    costs: Iterator[int] = iter([20, *range(20, 41)])
    calls = {"one": lambda: setattr(world, "now", world.now + next(costs) * MS)}
    rounds = time_rounds(calls, repeats=21, warmup=1, clock=world.clock, limit=100)
    assert rounds.percentiles("one") == {"p50": 30.0, "p95": 39.0}


def test_the_collector_is_off_only_meanwhile() -> None:
    seen = []
    time_rounds({"one": lambda: seen.append(gc.isenabled())}, repeats=2, warmup=1)
    assert seen and not any(seen) and gc.isenabled()
    with pytest.raises(ZeroDivisionError):
        time_rounds({"one": lambda: 1 // 0}, repeats=2, warmup=1)
    assert gc.isenabled()


def test_files_are_timed_under_the_machines_lock(
    residual_file: Path, quantized_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[str] = []
    real = _latency.time_rounds

    @contextmanager
    def locked(name: str) -> Iterator[None]:
        events.append(f"lock {name}")
        yield
        events.append("unlock")

    def timed(*arguments: object, **options: object) -> object:
        events.append("time")
        return real(*arguments, **options)

    monkeypatch.setattr(_latency, "machine_lock", locked)
    monkeypatch.setattr(_latency, "time_rounds", timed)
    files = {"float": residual_file, "int8": quantized_file}
    result = latency(files, torch.rand(3, 1, 8, 8), batches=(1, 16), repeats=10, warmup=1)
    assert events == ["lock latency", "time", "time", "unlock"]
    assert {name: list(by_batch) for name, by_batch in result.items()} == {"float": [1, 16], "int8": [1, 16]}
    for by_batch in result.values():
        assert all(0 < figures["p50"] <= figures["p95"] for figures in by_batch.values())


def test_a_file_is_as_fast_as_itself(residual_file: Path) -> None:
    files = {"one": residual_file, "other": residual_file}
    rounds = latency_rounds(files, torch.rand(2, 1, 8, 8), batches=(64,), repeats=30)[64]
    assert 0.7 < rounds.speedup("one", "other") < 1.4


def test_the_example_fills_any_batch() -> None:
    example = torch.arange(3.0)[:, None]
    assert rows_of(example, 7).flatten().tolist() == [0, 1, 2, 0, 1, 2, 0]
    assert rows_of(example, 2).flatten().tolist() == [0, 1]
