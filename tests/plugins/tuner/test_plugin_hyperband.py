"""Hyperband's brackets, rungs and epochs against the published algorithm; ASHA's promotions against a table."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest

from bigopt import RequestError, Tuner
from bigopt.registry import build
from bigopt.vocabulary.tuner import Assignment, Scheduler, Trial
from bigopt_plugins.tuner.asha import AshaSchedule
from bigopt_plugins.tuner.hyperband import HyperbandSchedule


def curve(number: int, epoch: int) -> float:
    """A made-up objective whose order changes with the epochs."""
    return random.Random(number * 1000 + epoch).random() + epoch / 100


def work(
    scheduler: Scheduler,
    full: int,
    value: Callable[[int, int], float] = curve,
    seen: list[Trial] | None = None,
    most: float = math.inf,
) -> tuple[list[Trial], list[Assignment]]:
    """One worker, from what was seen so far to the end or to so many assignments; stopped ones are told."""
    seen = [] if seen is None else seen
    given: list[Assignment] = []
    while len(given) < most and (assignment := scheduler.next(seen)) is not None:
        given.append(assignment)
        seen[:] = told(seen, assignment, full, value)
        for number in scheduler.stopped(seen):
            assert seen[number].standing == "paused"
            seen[number] = replace(seen[number], standing="done")
    return seen, given


def told(
    seen: Sequence[Trial], assignment: Assignment, full: int, value: Callable[[int, int], float] = curve
) -> list[Trial]:
    """The trials once an assignment was carried out."""
    before = dict(seen[assignment.id].values) if assignment.id < len(seen) else {}
    assert len(before) == assignment.start
    values = before | {
        epoch: value(assignment.id, epoch) for epoch in range(assignment.start + 1, assignment.until + 1)
    }
    after = Trial(assignment.id, values, assignment.until, "done" if assignment.until == full else "paused")
    return [*seen[: assignment.id], after, *seen[assignment.id + 1 :]]


def test_brackets_are_the_papers() -> None:
    schedule = HyperbandSchedule(81, 3)
    assert schedule.total == 143
    assert [(bracket.sizes, bracket.epochs) for bracket in schedule.brackets] == [
        ((81, 27, 9, 3, 1), (1, 3, 9, 27, 81)),
        ((34, 11, 3, 1), (3, 9, 27, 81)),
        ((15, 5, 1), (9, 27, 81)),
        ((8, 2), (27, 81)),
        ((5,), (81,)),
    ]


def test_a_pass_takes_the_papers_epochs() -> None:
    seen, given = work(HyperbandSchedule(81, 3), 81)
    assert len(seen) == 143
    assert sum(each.until - each.start for each in given) == 1581
    assert sum(len(trial.values) for trial in seen) == 1581  # promoted ones went on from their checkpoint
    assert sum(len(trial.values) == 81 for trial in seen) == 1 + 1 + 1 + 2 + 5
    assert all(trial.standing == "done" for trial in seen)


@pytest.mark.parametrize(("full", "eta"), [(27, 3), (16, 2), (20, 3), (1, 3)], ids=["27-3", "16-2", "20-3", "1-3"])
@pytest.mark.parametrize("maximize", [True, False], ids=["max", "min"])
def test_who_goes_on_is_the_algorithms_answer(full: int, eta: int, maximize: bool) -> None:
    """Algorithm 1 of Li et al. (2018), written down as it stands there, for whole and broken powers."""
    expected: dict[int, int] = {}
    s_max = math.floor(math.log(full + 0.5) / math.log(eta))
    for s in range(s_max, -1, -1):
        n = math.ceil((s_max + 1) / (s + 1) * eta**s)
        left = list(range(len(expected), len(expected) + n))
        for rung in range(s + 1):
            epochs = round(full / eta ** (s - rung))
            expected |= dict.fromkeys(left, epochs)
            left.sort(key=lambda number: curve(number, epochs), reverse=maximize)
            left = left[: math.floor(n / eta ** (rung + 1))]
    seen, _ = work(HyperbandSchedule(full, eta, maximize), full)
    assert {trial.id: len(trial.values) for trial in seen} == expected


@pytest.mark.parametrize("kind", [HyperbandSchedule, AshaSchedule], ids=["hyperband", "asha"])
def test_a_search_goes_on_exactly_from_what_the_storage_holds(kind: Any) -> None:
    whole = work(kind(27, 3, total=40), 27)[1]
    for stop in range(0, len(whole), 7):
        seen, first = work(kind(27, 3, total=40), 27, most=stop)
        stored = json.loads(json.dumps([[trial.values, trial.until, trial.standing] for trial in seen]))
        restored = [
            Trial(number, {int(epoch): value for epoch, value in values.items()}, until, standing)
            for number, (values, until, standing) in enumerate(stored)
        ]
        assert first + work(kind(27, 3, total=40), 27, seen=restored)[1] == whole


@pytest.mark.parametrize("workers", [2, 5, 200])
def test_more_workers_train_the_same_rungs(workers: int) -> None:
    """Rungs are synchronous: whoever is slow, the same configurations go on; only the next bracket starts earlier."""
    alone, _ = work(HyperbandSchedule(27, 3), 27)
    schedule, seen, running = HyperbandSchedule(27, 3), [], {}
    chance = random.Random(workers)
    while True:
        while len(running) < workers and (given := schedule.next(seen)) is not None:
            running[given.id] = given
            values = seen[given.id].values if given.id < len(seen) else {}
            seen[given.id : given.id + 1] = [Trial(given.id, values, given.until, "running")]
        if not running:
            break
        assert not schedule.finished(seen)
        done = running.pop(chance.choice(sorted(running)))
        seen = told(seen, done, 27)
        for number in schedule.stopped(seen):
            seen[number] = replace(seen[number], standing="done")
    assert schedule.finished(seen)
    assert seen == alone


def test_failures_never_go_on_and_hold_nobody_up() -> None:
    schedule = HyperbandSchedule(9, 3)
    seen: list[Trial] = []
    while (given := schedule.next(seen)) is not None:
        if given.id in (0, 4):  # dies before it reports
            seen[given.id : given.id + 1] = [Trial(given.id, {}, given.until, "failed")]
        else:
            seen = told(seen, given, 9, lambda number, epoch: math.nan if number == 1 else -number)
    assert [trial.until for trial in seen[:9]] == [1, 1, 9, 3, 1, 3, 1, 1, 1]
    assert schedule.finished(seen)


def test_a_failure_after_a_rung_changes_nothing_there() -> None:
    schedule = HyperbandSchedule(9, 3)
    seen, _ = work(schedule, 9, most=9 + 3)
    top = max(range(9), key=lambda number: curve(number, 1))
    before = [len(trial.values) for trial in seen]
    seen[top] = replace(seen[top], standing="failed")
    after, _ = work(schedule, 9, seen=list(seen))
    promoted = [number for number in range(9) if len(after[number].values) > 1]
    assert promoted == [number for number in range(9) if before[number] > 1]


def test_a_dead_workers_configuration_is_gone_on_with_first() -> None:
    schedule = HyperbandSchedule(9, 3)
    seen, _ = work(schedule, 9, most=9)
    winner = max(range(9), key=lambda number: curve(number, 1))
    values = dict(seen[winner].values)
    seen[winner] = Trial(winner, values | {2: 0.5}, 3, "paused")
    assert Assignment(winner, 2, 3) in work(schedule, 9, seen=list(seen), most=3)[1]
    never = [*seen[:8], Trial(8, {}, 1, "paused")]
    assert schedule.next(never) == Assignment(8, 0, 1)


@pytest.mark.parametrize(
    ("total", "sizes"),
    [(4, [(4, 1, 1)]), (12, [(9, 3, 1), (3, 1)]), (20, [(9, 3, 1), (5, 1), (3,), (3, 1, 1)])],
    ids=["4", "12", "20"],
)
def test_fewer_and_more_configurations_than_one_pass(total: int, sizes: list[tuple[int, ...]]) -> None:
    schedule = HyperbandSchedule(9, 3, total=total)
    assert [bracket.sizes for bracket in schedule.brackets] == sizes
    seen, _ = work(schedule, 9)
    assert len(seen) == total == schedule.total


def test_asha_promotes_as_the_table_says() -> None:
    """R=9, r=1, η=3. Values are fixed per configuration; each line is what a free worker gets."""
    value = {0: 0.5, 1: 0.6, 2: 0.4, 3: 0.7, 4: 0.1, 5: 0.2, 6: 0.3, 7: 0.8, 8: 0.9, 9: 0.0}
    schedule = AshaSchedule(9, 3, total=10)
    assert schedule.epochs == (1, 3, 9)
    _, given = work(schedule, 9, lambda number, epoch: value[number])
    assert [(each.id, each.start, each.until) for each in given] == [
        (0, 0, 1),
        (1, 0, 1),
        (2, 0, 1),
        (1, 1, 3),  # the best of three
        (3, 0, 1),
        (3, 1, 3),  # the best of four, though not promoted in its turn: asynchronous
        (4, 0, 1),
        (5, 0, 1),
        (6, 0, 1),
        (7, 0, 1),
        (7, 1, 3),  # best two of eight: 7, 3
        (7, 3, 9),  # rung 1 holds 1, 3, 7: its best goes on, before anything below
        (8, 0, 1),
        (8, 1, 3),  # best three of nine: 8, 7, 3
        (8, 3, 9),  # again the best of its rung: 8 of 1, 3, 7, 8
        (9, 0, 1),
    ]


def test_asha_without_a_promotable_one_waits_for_running_ones() -> None:
    schedule = AshaSchedule(9, 3, total=3)
    seen = [Trial(0, {1: 0.1}, 1, "paused"), Trial(1, {1: 0.2}, 1, "paused"), Trial(2, {}, 1, "running")]
    assert schedule.next(seen) is None and not schedule.finished(seen) and schedule.stopped(seen) == []
    seen[2] = Trial(2, {}, 1, "failed")
    assert schedule.next(seen) == Assignment(1, 1, 3)  # the failed one was on the rung as well
    seen[1] = Trial(1, {1: 0.2, 2: 0.2, 3: 0.2}, 3, "paused")
    assert schedule.finished(seen) and schedule.stopped(seen) == [0, 1]


def test_asha_minimises_too() -> None:
    seen = [Trial(number, {1: value}, 1, "paused") for number, value in enumerate((0.3, 0.1, math.nan))]
    assert AshaSchedule(9, 3, maximize=False).next(seen) == Assignment(1, 1, 3)


@pytest.mark.parametrize("name", ["hyperband", "asha"])
def test_plugins_are_filled_from_the_run(name: str) -> None:
    run = {"seed": 3, "n_trials": 20, "max_resource": 9, "directions": ["min"]}
    tuner = build("tuners", name, {"eta": 3, "sampler": "tpe"}, run)
    assert isinstance(tuner, Tuner) and tuner.stops_early and tuner.pruner is None
    assert isinstance(tuner.scheduler, Scheduler)
    assert tuner.scheduler.total == 20 and not tuner.scheduler.maximize  # type: ignore[attr-defined]
    assert tuner.sampler(4)._rng.rng.rand() != tuner.sampler(5)._rng.rng.rand()  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ({"eta": 1}, "eta: got 1, expected at least 2"),
        ({"min_epochs": 10}, r"min_epochs: got 10, expected 1 to max_resource \(9\)"),
        ({"max_resource": 0}, "max_resource: got 0, expected the epochs of a full training"),
        ({"n_trials": 0}, "n_trials: got 0, expected at least 1"),
    ],
    ids=["eta", "min_epochs", "max_resource", "n_trials"],
)
def test_wrong_arguments_are_refused(arguments: dict[str, Any], line: str) -> None:
    for name in ("hyperband", "asha"):
        with pytest.raises(RequestError, match=line):
            build("tuners", name, arguments, {"max_resource": 9})
