"""``bigopt doctor``: is everything there that runs need, and what to do where it is not."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from textwrap import fill

from bigopt.cli._checks import Check
from bigopt.cli._checks.datasets import data_checks
from bigopt.cli._checks.hardware import (
    compiler_check,
    cpu_check,
    gpu_check,
    threads_check,
    torch_check,
    torch_facts,
)
from bigopt.cli._checks.packages import package_checks, plugins_check, python_check, torchvision_check
from bigopt.cli._checks.services import folder_check, storage_check, tracking_check
from bigopt.cli._terminal import Paint, emit, painter, width
from bigopt.store import redact

_STYLES = {"ok": "green", "warn": "bold yellow", "fail": "bold red"}


def main(argv: list[str]) -> int:
    """Checks the installation and the machine.

    Args:
        argv: the words after ``doctor``.

    Returns:
        0, 1 where something essential fails, 2 for an unknown flag.
    """
    parser = argparse.ArgumentParser("bigopt doctor", description="Checks the installation and the machine.")
    parser.add_argument("--json", action="store_true", help="as JSON, for programs")
    parser.add_argument("--tracking-uri", metavar="URI", help="the tracking.uri to try; default: ./mlflow.db")
    parser.add_argument("--storage", metavar="URI", help="the hydra.sweeper.storage to try; default: a journal file")
    try:
        args = parser.parse_args(argv)
    except SystemExit as stop:
        return int(stop.code or 0)
    checks = examine(Path.cwd(), args.tracking_uri, args.storage)
    failed = any(check.status == "fail" for check in checks)
    emit(redact(as_json(checks) if args.json else "\n".join(_lines(checks, painter(), width()))))
    return 1 if failed else 0


def examine(folder: Path, tracking: str | None = None, storage: str | None = None) -> list[Check]:
    """All checks, in the order in which they are shown.

    Args:
        folder: the working folder.
        tracking: MLflow tracking URI; None means the default.
        storage: Optuna storage; None means the default.
    """
    with ThreadPoolExecutor() as pool:  # most of the time goes to other processes
        torch = pool.submit(torch_facts)
        others: list[Callable[[], Check]] = [
            torchvision_check,
            plugins_check,
            compiler_check,
            lambda: folder_check(folder),
            lambda: tracking_check(tracking, folder),
            lambda: storage_check(storage, folder),
        ]
        pending = [pool.submit(check) for check in others]
        data = pool.submit(lambda: list(data_checks()))
        facts, error = torch.result()
        torchvision, plugins, compiler, *services = [future.result() for future in pending]
        hardware = [torch_check(facts, error), cpu_check(), threads_check(facts), gpu_check(facts), compiler]
        return [python_check(), *package_checks(), torchvision, plugins, *hardware, *data.result(), *services]


def as_json(checks: Sequence[Check]) -> str:
    """The checks for programs, under ``checks``, and the worst status under ``status``."""
    found = [{"name": c.name, "status": c.status, "line": c.line, "hint": c.hint, "details": c.details} for c in checks]
    statuses = {check.status for check in checks}
    worst = next((status for status in ("fail", "warn") if status in statuses), "ok")
    return json.dumps({"status": worst, "checks": found}, indent=2)


def _lines(checks: Sequence[Check], paint: Paint, columns: int) -> Iterator[str]:
    left = max(len(check.name) for check in checks) + 8
    for check in checks:
        head = f"{check.status:<5} {check.name}".ljust(left)
        text = fill(head + check.line, columns, subsequent_indent=" " * left, break_long_words=False)
        yield paint(check.status, _STYLES[check.status]) + text[len(check.status) :]
        if check.hint:
            yield paint(
                fill(f"→ {check.hint}", columns, initial_indent=" " * left, subsequent_indent=" " * left), "cyan"
            )
    counts = {status: sum(check.status == status for check in checks) for status in _STYLES}
    yield f"\n{counts['ok']} in order, {counts['warn']} warnings, {counts['fail']} failures"
