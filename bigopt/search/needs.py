"""What a trial may leave out because no objective and no budget looks at it."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from dataclasses import asdict

from bigopt.vocabulary.settings import Budget

OF_MEMORY = ("val/", "robustness/", "parameters", "nonzero", "macs", "bops", "drop", "seconds", "recovery_epochs")
"""Report values that are known without a file."""

OF_CLOCK = ("latency_ms", "speedup")
BUDGETS = {"max_drop": "drop", "max_bytes": "bytes", "max_latency_ms": "latency_ms", "max_macs": "macs"}


def skipped(objective: Mapping[str, str], budget: Budget, given: Collection[str], workers: int) -> list[str]:
    """Overrides that leave out what a trial does not need, and share out the threads.

    Args:
        objective: names of report values.
        budget: limits.
        given: keys that the user has set, which are left alone.
        workers: processes that work at a time.
    """
    wanted = [*objective, *(BUDGETS[name] for name, limit in asdict(budget).items() if limit is not None)]
    lines = {}
    if not any(name.startswith(OF_CLOCK) for name in wanted):
        lines["measure.latency"] = "false"
    if all(name.startswith(OF_MEMORY) for name in wanted):
        lines["measure.export"] = "false"
    lines["tracking.log_model"] = "false"
    if workers > 1:
        lines["trainer.threads"] = str(threads(workers))
    return [f"{key}={value}" for key, value in lines.items() if key not in given]


def threads(workers: int) -> int:
    """Threads of one worker, so that all together have one on each core."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // max(1, workers))
