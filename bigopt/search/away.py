"""Jobs in other processes than the worker that waits for them: how they are told to stop, and how they notice that
nobody waits any more.

The worker's word is a file in the sweep's folder, which every launcher's jobs share; a job looks for it, and for its
worker, and then does what SIGTERM makes it do: it writes a checkpoint and ends.
"""

from __future__ import annotations

import atexit
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from bigopt.search.keys import WORKER
from bigopt.search.repeating import repeating
from bigopt.store import Owner, me

LOOK = 0.5
"""Seconds between two looks of a job at its worker."""

PATIENCE = 20
"""Seconds that a worker waits for the checkpoint of a job that it has told to stop."""


class Asked:
    """Whether this worker was told to stop while its job ran."""

    def __init__(self) -> None:
        self.yes = False

    def __bool__(self) -> bool:
        return self.yes


def stop_file(folder: Path, worker: Owner) -> Path:
    """What a worker leaves for its job in the sweep's folder."""
    return Path(folder) / ".stop" / str(worker)


@contextmanager
def telling(folder: Path) -> Iterator[Asked]:
    """Hands SIGTERM on to the job that the block waits for, instead of leaving it alone.

    Args:
        folder: the sweep's.

    Raises:
        SystemExit: the job took longer than :data:`PATIENCE`.
    """
    asked, file = Asked(), stop_file(folder, me())
    if threading.current_thread() is not threading.main_thread():
        yield asked
        return

    def ask(_number: int, _frame: FrameType | None) -> None:
        asked.yes = True
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
        signal.alarm(PATIENCE)

    def give_up(_number: int, _frame: FrameType | None) -> None:
        raise SystemExit(128 + signal.SIGTERM)

    before = {
        signal.SIGTERM: signal.signal(signal.SIGTERM, ask),
        signal.SIGALRM: signal.signal(signal.SIGALRM, give_up),
    }
    try:
        yield asked
    finally:
        signal.alarm(0)
        for number, handler in before.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)
        file.unlink(missing_ok=True)


@contextmanager
def listening(folder: Path) -> Iterator[None]:
    """In a job: does what SIGTERM does once its worker says so, or is dead; nothing in the worker's own process.

    Args:
        folder: the sweep's.
    """
    worker = Owner.parse(os.environ.get(WORKER, ""))
    if worker is None or worker == me():
        yield
        return
    file = stop_file(folder, worker)

    def look() -> bool:
        wanted = file.exists() or worker.alive() is False
        if wanted:
            os.kill(os.getpid(), signal.SIGTERM)
        return wanted

    with repeating(look, LOOK, "bigopt-listening"):
        yield


def end_helpers() -> None:
    """Ends what launchers keep for the next job: joblib's processes, and Ray's where this process started it."""
    pool = sys.modules.get("joblib.externals.loky.reusable_executor")
    executor = getattr(pool, "_executor", None)
    if executor is not None:
        getattr(executor, "terminate", executor.shutdown)(kill_workers=True)
        if multiprocessing.parent_process() is not None:
            atexit._run_exitfuncs()  # a worker ends without them, and joblib would be told of leaks
    ray = sys.modules.get("ray")
    if ray is not None and ray.is_initialized():
        ray.shutdown()
