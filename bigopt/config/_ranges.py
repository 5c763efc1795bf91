"""Which values make sense, for the settings that the vocabulary's dataclasses only give a type."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Range:
    """What a number must satisfy.

    Attributes:
        text: as the message says it.
        holds: whether a number is inside.
    """

    text: str
    holds: Callable[[float], bool]


def _at_least(low: float) -> Range:
    return Range(f"at least {low:g}", lambda value: value >= low)


POSITIVE = Range("a value above 0", lambda value: 0 < value < float("inf"))
NOT_NEGATIVE = Range("0 or more", lambda value: 0 <= value < float("inf"))
SHARE = Range("a share in [0, 1]", lambda value: 0 <= value <= 1)
BELOW_ONE = Range("a share in [0, 1)", lambda value: 0 <= value < 1)
ONE = _at_least(1)
FINITE = Range("a finite number", lambda value: abs(value) < float("inf"))

RANGES: dict[str, Range] = {
    "trainer.max_epochs": NOT_NEGATIVE,
    "trainer.batch_size": ONE,
    "trainer.eval_batch_size": ONE,
    "trainer.devices": ONE,
    "trainer.threads": ONE,
    "trainer.gradient_clip": POSITIVE,
    "trainer.accumulate": ONE,
    "trainer.early_stopping": ONE,
    "trainer.ema": Range("a decay in (0, 1)", lambda value: 0 < value < 1),
    "trainer.label_smoothing": BELOW_ONE,
    "trainer.checkpoint_seconds": POSITIVE,
    "trainer.workers": NOT_NEGATIVE,
    "optimizer.lr": POSITIVE,
    "optimizer.weight_decay": NOT_NEGATIVE,
    "optimizer.momentum": BELOW_ONE,
    "optimizer.betas": BELOW_ONE,
    "scheduler.warmup": BELOW_ONE,
    "scheduler.final": SHARE,
    "scheduler.gamma": Range("a factor in (0, 1]", lambda value: 0 < value <= 1),
    "scheduler.step_epochs": ONE,
    "scheduler.patience": NOT_NEGATIVE,
    "scheduler.power": POSITIVE,
    "budget.max_drop": FINITE,
    "budget.max_bytes": ONE,
    "budget.max_latency_ms": POSITIVE,
    "budget.max_macs": ONE,
    "measure.large_batch": ONE,
    "measure.threads": ONE,
    "measure.repeats": ONE,
    "measure.warmup": NOT_NEGATIVE,
    "evaluate.severities": Range("strengths from 1 to 5", lambda value: 1 <= value <= 5),
    "recover.epochs": NOT_NEGATIVE,
    "recover.lr": POSITIVE,
    "recover.temperature": POSITIVE,
    "recover.alpha": SHARE,
    "schedule.rounds": ONE,
    "max_drop": NOT_NEGATIVE,
}
"""By config path; the options of a compression step without the step's own path."""


def out_of_range(values: Mapping[str, Any], path: str, at: str = "") -> list[str]:
    """One line for every value outside its range.

    Args:
        values: settings, nested mappings included.
        path: where they stand in the configuration, for the message.
        at: where their ranges stand in the table.
    """
    problems = []
    for key, value in values.items():
        inner = f"{at}.{key}" if at else key
        if isinstance(value, Mapping):
            problems += out_of_range(value, f"{path}.{key}", inner)
        elif inner in RANGES:
            numbers = value if isinstance(value, list | tuple) else [value]
            allowed = RANGES[inner]
            if any(_number(number) and not allowed.holds(number) for number in numbers):
                problems.append(f"{path}.{key}: got {value}, expected {allowed.text}")
    return problems


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
