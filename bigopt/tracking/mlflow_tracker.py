"""Tracks a run in MLflow without ever waiting for it: events go to a journal on disk, a thread sends them on."""

from __future__ import annotations

import logging
import random
import threading
import time
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bigopt.store import Journal, me, redact, write_atomic
from bigopt.tracking.names import LONGEST_TAG, flatten, metrics_of, shortened, tags_of
from bigopt.tracking.onnx_model import EXAMPLE
from bigopt.tracking.protocol import Status
from bigopt.tracking.provenance import standard_tags
from bigopt.tracking.runs import PENDING, ParentMissing
from bigopt.tracking.sender import JOURNAL, Sender
from bigopt.tracking.target import Target
from bigopt.vocabulary.settings import Tracking

if TYPE_CHECKING:
    import numpy

GATHER = 0.5  # seconds over which events are gathered into one request
PATIENCE = 60.0  # seconds that the end of a run waits for a server that answers
BACKOFF = (15.0, 120.0)  # seconds between attempts to reach a server that does not answer: first, longest
HANGING = 3.0  # seconds that an attempt in vain may have taken for another to be made at the end of a run
LOCKED_ATTEMPTS = 5
EXAMPLE_ROWS = 2

log = logging.getLogger("bigopt.tracking")


class MlflowTracker:
    """A :class:`~bigopt.tracking.protocol.Tracker` on MLflow.

    A server that is down is mentioned once; events stay in ``tracking.jsonl`` in the run's folder, go out when it
    is back, and what is left then is sent by :func:`bigopt.tracking.sync`.

    Args:
        settings: what is tracked.
        folder: the run's folder.
        target: where to.
        working_dir: where to look for the git commit.
    """

    def __init__(self, settings: Tracking, folder: Path, target: Target, working_dir: Path) -> None:
        self.settings = settings
        self.folder = folder
        self.target = target
        self.working_dir = working_dir
        self.journal = Journal(folder / JOURNAL)
        self._sender = Sender(folder, target)
        self._uid = ""
        self._said: set[str] = set()
        self._news = threading.Event()
        self._created = threading.Event()  # set once it is clear whether MLflow has the run
        self._ending = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def run_id(self) -> str | None:
        """MLflow's id; while the server is down one of our own, which child runs may be given as parent."""
        if not self._uid:
            return None
        self._created.wait(PATIENCE)
        state = self._sender.state()
        return state.run_id if state.uid == self._uid and state.run_id else PENDING + self._uid

    def start(self, name: str, params: Mapping[str, Any], tags: Mapping[str, Any], parent: str | None = None) -> None:
        """Starts the run, or goes on with the one in the folder that did not finish."""
        self._uid = self._unfinished() or uuid.uuid4().hex
        self._write(
            event="start",
            uid=self._uid,
            name=shortened(redact(name), LONGEST_TAG),
            params=flatten(params),
            tags=tags_of(standard_tags(self.working_dir) | dict(tags)),
            parent=parent,
            uri=self.target.shown,
            experiment=self.target.experiment,
            artifacts=self.target.artifacts,
            owner=str(me()),
        )
        self._thread = threading.Thread(target=self._work, name="bigopt-tracking", daemon=True)
        self._thread.start()

    def epoch(self, stage: str, epoch: int, metrics: Mapping[str, float]) -> None:
        """Metrics of one epoch."""
        self._write(event="metrics", step=int(epoch), values=metrics_of(redact(stage), metrics))

    def stage(self, name: str, metrics: Mapping[str, float], step: int) -> None:
        """Metrics of a stage."""
        self._write(event="metrics", step=int(step), values=metrics_of(f"stage/{redact(name)}", metrics))

    def artifact(self, path: Path, folder: str = "") -> None:
        """A file or folder."""
        if self.settings.artifacts:
            self._write(event="artifact", path=self._relative(path), folder=redact(folder))

    def model(self, onnx_path: Path, example: numpy.ndarray[Any, Any]) -> None:
        """The exported model."""
        if not self.settings.log_model:
            return
        import numpy

        def save(path: Path) -> None:
            numpy.save(path, example[:EXAMPLE_ROWS], allow_pickle=False)

        try:
            write_atomic(self.folder / EXAMPLE, save)
        except OSError as error:
            self._say("disk", f"tracking: the model is not tracked ({error})")
            return
        self._write(event="model", path=self._relative(onnx_path), example=EXAMPLE)

    def finish(self, status: Status, error: str | None = None) -> None:
        """Ends the run; waits, for a bounded time, until a server that answers has everything."""
        reason = shortened(redact(error), LONGEST_TAG) if error else None
        self._write(event="finish", status=status, error=reason)
        self._ending.set()
        self._news.set()
        if self._thread is None:
            return
        self._thread.join(PATIENCE)
        if self._thread.is_alive():
            self._say("down", "the server takes longer than a minute")

    def _write(self, **record: Any) -> None:
        """Journals an event; a full disk stops tracking, not training."""
        try:
            self.journal.append({**record, "time": int(time.time() * 1000)}, durable=record["event"] == "finish")
        except OSError as error:
            self._say("disk", f"tracking: {self.journal.path} cannot be written ({error}); events are lost")
        self._news.set()

    def _unfinished(self) -> str | None:
        """Identity of the folder's last run, if it did not finish."""
        uid = None
        try:
            records = list(self.journal.read())
        except OSError:
            return None  # said when the first event is written
        for record in records:
            if record.get("event") == "start":
                uid = record.get("uid")
            elif record.get("event") == "finish" and record.get("status") == "finished":
                uid = None
        return uid

    def _relative(self, path: Path) -> str:
        """A path that stays right when the run's folder is moved."""
        path = Path(path).resolve()
        folder = self.folder.resolve()
        return str(path.relative_to(folder)) if path.is_relative_to(folder) else str(path)

    def _work(self) -> None:
        """The thread: gathers events, sends them, backs off while the server is down."""
        failures, lost = 0, 0.0
        while True:
            self._wait(min(BACKOFF[0] * 2 ** (failures - 1), BACKOFF[1]) if failures else None)
            ending = self._ending.is_set()
            if ending and lost > HANGING:
                return  # it hung just now, and would keep the run from ending
            begun = time.monotonic()
            try:
                self._send()
                failures, lost = 0, 0.0
            except Exception as error:  # nothing that tracking does may end a run
                failures, lost = failures + 1, time.monotonic() - begun
                self._say("down", _line(error))
            self._created.set()
            if ending:
                return

    def _wait(self, pause: float | None) -> None:
        """Until there are events and some time to gather more; with a pause, until that is over or the run ends."""
        if pause is not None:
            self._ending.wait(pause)
            return
        self._news.wait()
        self._news.clear()
        if self._created.is_set():
            self._ending.wait(GATHER)

    def _send(self) -> None:
        """Sends; other processes may hold the database for a moment."""
        for attempt in range(LOCKED_ATTEMPTS):
            try:
                self._sender.send()
                break
            except Exception as error:
                waiting = isinstance(error, ParentMissing) or "database is locked" in str(error)
                if not waiting or attempt == LOCKED_ATTEMPTS - 1:
                    raise
            time.sleep(random.uniform(0.1, 0.5) * (attempt + 1))
        if self._sender.refused:
            self._say("refused", f"tracking: {self.target.shown} refused {_line(self._sender.refused[0])}")

    def _say(self, kind: str, reason: str) -> None:
        """One line, once a kind."""
        if kind in self._said:
            return
        self._said.add(kind)
        if kind == "down":
            reason = (
                f"tracking: {self.target.shown} cannot be used ({reason}); training goes on, everything is kept in "
                f"{self.journal.path} and sent when it is back (bigopt report --sync {self.folder})"
            )
        log.warning("%s", redact(reason))


def _line(error: object) -> str:
    """The first line of a message, shortened."""
    text = str(error).strip() or type(error).__name__
    return redact(text.splitlines()[0])[:200]
