"""Signal handlers that only set a flag; the work in progress saves itself at its next safe moment and stops."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Any

from bigopt.vocabulary.errors import Interrupted

WATCHED = (signal.SIGTERM, signal.SIGINT)


class Signals:
    """Remembers that SIGTERM or SIGINT came; a context manager installs the handlers and puts the old ones back.

    A second Ctrl-C after either signal raises KeyboardInterrupt: it stops at once, and the newest checkpoint is then
    the last periodic one.

    Attributes:
        received: number of the first signal that came, None so far.
        forced: whether a second Ctrl-C asked to stop at once.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self.forced = False
        self._previous: dict[int, Any] = {}

    def request(self, signum: int) -> None:
        """Does what the arrival of a signal does, without one."""
        self.received = self.received if self.received is not None else signum

    def check(self) -> None:
        """Stops here if a signal came.

        Raises:
            Interrupted: carrying the signal's number.
        """
        if self.received is not None:
            raise Interrupted(self.received)

    def install(self) -> None:
        """Makes these handlers the process's; does nothing outside the main thread, where Python forbids it."""
        if threading.current_thread() is not threading.main_thread():
            return
        for signum in WATCHED:
            current = signal.getsignal(signum)
            if current != self._handle:
                self._previous.setdefault(signum, current)
                signal.signal(signum, self._handle)

    def restore(self) -> None:
        """Puts back the handlers that were there before :meth:`install`."""
        while self._previous:
            signum, handler = self._previous.popitem()
            signal.signal(signum, handler if handler is not None else signal.SIG_DFL)

    @property
    def installed(self) -> bool:
        """Whether :meth:`install` has put handlers in place that :meth:`restore` has not yet taken away."""
        return bool(self._previous)

    def __enter__(self) -> Signals:
        self.install()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.restore()

    def _handle(self, signum: int, _frame: FrameType | None) -> None:
        if self.received is not None and signum == signal.SIGINT:
            self.forced = True
            raise KeyboardInterrupt
        self.request(signum)
