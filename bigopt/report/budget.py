"""Whether the final model keeps to the limits that were set."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from bigopt.report.stage import value_of

if TYPE_CHECKING:
    from bigopt.vocabulary.settings import Budget

_VALUES = {
    "max_drop": "drop",
    "max_bytes": "bytes",
    "max_latency_ms": "latency_ms.batch_1.p50",
    "max_macs": "macs",
}


def judge_budget(budget: Budget, final: Mapping[str, Any] | None) -> dict[str, Any]:
    """The verdict on the final model.

    Args:
        budget: limits; those that are None are not judged.
        final: the last step's row of the report; None while there is none, or when the run did not finish.

    Returns:
        For every limit set ``{"limit", "value", "met"}``, and ``met`` for all together: None without a limit or
        without a final row. A value that was not measured does not meet its limit.
    """
    verdict: dict[str, Any] = {}
    for name, limit in asdict(budget).items():
        if limit is None:
            continue
        value = None if final is None else value_of(final, _VALUES[name])
        met = None if final is None else value is not None and _within(value, limit)
        verdict[name] = {"limit": limit, "value": value, "met": met}
    judged = [entry["met"] for entry in verdict.values()]
    verdict["met"] = all(judged) if judged and final is not None else None
    return verdict


def _within(value: float, limit: float) -> bool:
    """``value <= limit``, where 0.98 - 0.97 counts as 0.01."""
    return value <= limit + 1e-9 * max(1.0, abs(limit))
