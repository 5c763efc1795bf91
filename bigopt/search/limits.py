"""The numbers among a sweep's settings, checked."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from bigopt.search.plan import Limits
from bigopt.vocabulary.errors import RequestError


def limits(sweeper: Mapping[str, Any], n_trials: int | None) -> Limits:
    """When a search ends, and what it puts up with.

    Raises:
        RequestError: a setting is no such number.
    """
    return Limits(
        n_trials=n_trials,
        timeout=number(sweeper, "timeout", 0),
        target=number(sweeper, "target", -math.inf),
        patience=number(sweeper, "patience", 1, whole=True),
        worth=number(sweeper, "worth", 0),
        worth_trials=number(sweeper, "worth_trials", 2, whole=True),
        max_retries=number(sweeper, "max_retries", 0, whole=True),
        fail_fast=bool(sweeper.get("fail_fast", False)),
        heartbeat=number(sweeper, "heartbeat", 0.01),
        grace=number(sweeper, "grace", 0.01),
    )


def number(sweeper: Mapping[str, Any], name: str, least: float, whole: bool = False) -> Any:
    """A setting of ``hydra.sweeper``; None where it may be left open and is.

    Raises:
        RequestError: it is no number, or below ``least``.
    """
    value = sweeper.get(name)
    if value is None and name in ("timeout", "target", "patience", "worth"):
        return None
    good = isinstance(value, int if whole else int | float) and not isinstance(value, bool)
    if not good or value is None or value < least:
        kind = "a whole number" if whole else "a number"
        bound = f" of at least {least:g}" if math.isfinite(least) else ""
        raise RequestError(f"hydra.sweeper.{name}: got {value!r}, expected {kind}{bound}")
    return value
