"""What the paper's Hyperband and ASHA share: rungs, and who did best there."""

from __future__ import annotations

import math
from collections.abc import Sequence

from bigopt.vocabulary.errors import RequestError
from bigopt.vocabulary.tuner import Trial


def rungs_below(max_resource: int, eta: int, min_epochs: int = 1) -> int:
    """``⌊log_η(R / r)⌋`` in whole numbers, since a logarithm may miss an exact power."""
    count = 0
    while min_epochs * eta ** (count + 1) <= max_resource:
        count += 1
    return count


def rung_epochs(max_resource: int, eta: int, steps: int) -> list[int]:
    """Epochs ``R·η⁻ˢ, …, R·η⁻¹, R`` of a ladder with so many steps, to whole epochs."""
    return [max(1, round(max_resource / eta**left)) for left in range(steps, -1, -1)]


def value_at(seen: Trial, epochs: int) -> float | None:
    """The objective after this many epochs, or after the last one of a training that ended before by itself.

    None where it has not come that far, where it failed before, and where the value is not a number.
    """
    value = seen.values.get(epochs)
    if value is None and seen.standing == "done" and seen.values:
        value = seen.values[max(seen.values)]
    return value if value is not None and math.isfinite(value) else None


def arrived(seen: Trial, epochs: int) -> bool:
    """Whether it has been given this many epochs, or will never get them."""
    return seen.standing in ("done", "failed") or any(epoch >= epochs for epoch in seen.values)


def best(seen: Sequence[Trial], epochs: int, count: int, maximize: bool) -> list[int]:
    """Ids of the ``count`` best after this many epochs, best first; the earlier one wins a tie, failures never do."""
    scored = [(value, one.id) for one in seen if (value := value_at(one, epochs)) is not None]
    scored.sort(key=lambda pair: (-pair[0] if maximize else pair[0], pair[1]))
    return [number for _, number in scored[:count]]


def check_ladder(max_resource: int | None, eta: int, min_epochs: int, n_trials: int | None) -> int:
    """The epochs of a full training, checked.

    Raises:
        RequestError: a value is missing or out of range.
    """
    problems = []
    if max_resource is None or max_resource < 1:
        problems.append(f"max_resource: got {max_resource}, expected the epochs of a full training, at least 1")
    if eta < 2:
        problems.append(f"eta: got {eta}, expected at least 2")
    if min_epochs < 1 or (max_resource is not None and min_epochs > max(1, max_resource)):
        problems.append(f"min_epochs: got {min_epochs}, expected 1 to max_resource ({max_resource})")
    if n_trials is not None and n_trials < 1:
        problems.append(f"n_trials: got {n_trials}, expected at least 1, or none")
    if problems or max_resource is None:
        raise RequestError(problems)
    return max_resource
