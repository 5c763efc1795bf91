"""The sweep's own run in tracking: kept by a process of its own, so that the one that forks workers has no threads."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bigopt.search.configurations import Configuration, counts
from bigopt.search.outcome import best
from bigopt.search.plan import Plan
from bigopt.vocabulary.settings import Tracking

STARTING = 90.0  # seconds that a sweep waits for the identity of its run
ENDING = 120.0  # seconds that its end waits until everything is sent


class Recording:
    """The parent run of a sweep.

    Args:
        plan: the sweep.
        settings: where it is tracked.
        params: parameters, repeated on every child by its own run.
        tags: facts.

    Attributes:
        run_id: to be given to the trials; None where nothing is tracked.
    """

    def __init__(self, plan: Plan, settings: Tracking, params: Mapping[str, Any], tags: Mapping[str, Any]) -> None:
        self.plan = plan
        self.run_id: str | None = None
        self._best: tuple[float, ...] | None = None
        self._counts: dict[str, int] = {}
        self._process: Any = None
        if settings.name == "none":
            return
        context = multiprocessing.get_context("fork")
        self._connection, theirs = context.Pipe()
        sys.stdout.flush()
        sys.stderr.flush()
        self._process = context.Process(
            target=_record, args=(theirs, self._connection, settings, plan.folder, plan.study, dict(params), dict(tags))
        )
        self._process.start()
        theirs.close()

    def wait(self) -> str | None:
        """Waits until tracking has the run, for a bounded time."""
        if self._process is not None and self.run_id is None:
            try:
                if self._connection.poll(STARTING):
                    self.run_id = self._connection.recv()
            except (EOFError, OSError):
                self._process = None
        return self.run_id

    def seen(self, known: Sequence[Configuration]) -> None:
        """The best value as it comes, and the counts."""
        top = best(known, self.plan.objectives)
        found = counts(known)
        ended = sum(found.get(state, 0) for state in ("complete", "pruned", "failed"))
        values = tuple(top.last.values) if top is not None else None
        if values is not None and values != self._best:
            self._best = values
            self._send(
                "metrics",
                {f"best/{m.metric}": v for m, v in zip(self.plan.objectives, values, strict=True)},
                ended,
            )
        ending = {
            f"trials/{name}": number for name, number in found.items() if name in ("complete", "pruned", "failed")
        }
        if ending != self._counts:
            self._counts = ending
            self._send("metrics", {name: float(number) for name, number in ending.items()}, ended)

    def ended(self, known: Sequence[Configuration], status: str) -> None:
        """Nothing: files follow."""

    def artifact(self, path: Path, folder: str = "") -> None:
        """A file or folder to keep."""
        self._send("artifact", path, folder)

    def finish(self, status: str, error: str | None = None) -> None:
        """The sweep ended."""
        if self._process is None:
            return
        self._send("finish", status, error)
        if self._process is not None:
            self._process.join(ENDING)

    def _send(self, *message: Any) -> None:
        if self._process is None:
            return
        try:
            self._connection.send(message)
        except (OSError, ValueError):
            self._process = None  # it is gone; what it had is in its journal


def _record(
    connection: Any,
    parents: Any,
    settings: Tracking,
    folder: Path,
    name: str,
    params: dict[str, Any],
    tags: dict[str, Any],
) -> None:
    """The process: tells tracking what it is told, until the other end closes."""
    from bigopt.tracking import make_tracker

    os.setsid()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    parents.close()
    tracker = make_tracker(settings, folder, Path.cwd())
    tracker.start(name, params=params, tags=tags)
    code = 0
    try:
        connection.send(tracker.run_id)
        while True:
            kind, *rest = connection.recv()
            if kind == "metrics":
                tracker.epoch("sweep", rest[1], rest[0])
            elif kind == "artifact":
                tracker.artifact(*rest)
            elif kind == "finish":
                tracker.finish(*rest)
                break
    except (EOFError, OSError):
        tracker.finish("interrupted", "the sweep's process died")
    except BaseException:
        code = 1
    os._exit(code)
