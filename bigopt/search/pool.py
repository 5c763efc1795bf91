"""Worker processes of a sweep: forked, watched, replaced when they die, and ended with their parent."""

from __future__ import annotations

import atexit
import mmap
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import FrameType, TracebackType
from typing import Any

from bigopt.vocabulary.errors import RunFailed

LOOK = 0.05
"""Seconds between two looks at the workers."""

LOOK_AGAIN = 1.0
"""Seconds between two looks at the study for further work while some worker is busy."""

Work = Callable[[Callable[[], bool], Callable[[], None]], int | None]


class Flag:
    """A byte that forked processes share; no lock that a killed process could keep."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, 1)

    def set(self) -> None:
        """Raises it."""
        self._memory[0] = 1

    def __call__(self) -> bool:
        """Whether it is raised."""
        return bool(self._memory[0])


class Stopper:
    """Ctrl-C once: no further trial begins. Twice, or SIGTERM: running trials are interrupted, to be gone on with.

    Attributes:
        flag: seen by every worker.
        received: number of the first signal; None so far.
        hard: whether running trials are to be interrupted.
    """

    def __init__(self, say: Callable[[str], None] = lambda _text: None) -> None:
        self.flag = Flag()
        self.received: int | None = None
        self.hard = False
        self._say = say
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Stopper:
        for number in (signal.SIGINT, signal.SIGTERM):
            self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        again = self.received is not None
        self.received = self.received or number
        self.flag.set()
        if again or number == signal.SIGTERM:
            self.hard = True
        else:
            self._say("Ctrl-C: the running trials are finished first; once more ends at once")


@dataclass
class Pool:
    """Workers.

    Attributes:
        work: what each does; given a function that says whether to stop, and one that makes all stop.
        size: how many work at a time; 0 works in this process.
        stopper: signals of the parent.
        remaining: whether there is work for another worker.
        before_fork: closes what a forked process must not share.
        on_death: told of the exit code of a worker that died; says whether it had begun something.
        patience: deaths of workers that had not.
    """

    work: Work
    size: int
    stopper: Stopper
    remaining: Callable[[], bool]
    before_fork: Callable[[], None] = lambda: None
    on_death: Callable[[int], bool] = lambda _code: False
    patience: int = 20
    _workers: list[Any] = field(default_factory=list)
    _told: set[int] = field(default_factory=set)

    def run(self, meanwhile: Callable[[], object], wait: Callable[[], bool] = lambda: False) -> None:
        """Works until nothing is left.

        Args:
            meanwhile: called again and again.
            wait: whether to look again although nothing is left for this machine (others still run).

        Raises:
            RunFailed: workers die before they begin.
        """
        if self.size == 0:
            ended = self.work(self.stopper.flag, self.stopper.flag.set)
            self.stopper.received = self.stopper.received or ended
            meanwhile()
            return
        idle, looked = 0, 0.0
        while True:
            died = self._collect()
            if self.stopper.hard:
                self._interrupt()
            idle += sum(not self.on_death(code) for code in died)
            if idle > self.patience:
                raise RunFailed(
                    f"{idle} workers died before they had begun anything, the last with exit code {died[-1]}"
                )
            missing = not self.stopper.flag() and len(self._workers) < self.size
            if missing and (died or not self._workers or time.monotonic() - looked > LOOK_AGAIN):
                looked = time.monotonic()
                while len(self._workers) < self.size and self.remaining():
                    self._fork()
            if not self._workers and (self.stopper.flag() or not wait()):
                meanwhile()
                return
            meanwhile()
            time.sleep(LOOK)

    def close(self) -> None:
        """Ends what still runs."""
        self._interrupt()
        deadline = time.monotonic() + 30
        for worker in self._workers:
            worker.join(max(0.1, deadline - time.monotonic()))
            if worker.is_alive():
                worker.kill()
                worker.join()
        self._workers.clear()

    @property
    def alive(self) -> int:
        """Number of workers."""
        return len(self._workers)

    def _collect(self) -> list[int]:
        """Exit codes of workers that died."""
        died = []
        for worker in [worker for worker in self._workers if not worker.is_alive()]:
            worker.join()
            self._workers.remove(worker)
            if worker.exitcode:
                died.append(int(worker.exitcode))
        return died

    def _interrupt(self) -> None:
        for worker in self._workers:
            if worker.is_alive() and worker.pid not in self._told:
                self._told.add(worker.pid)
                worker.terminate()

    def _fork(self) -> None:
        self.before_fork()
        sys.stdout.flush()
        sys.stderr.flush()
        context = multiprocessing.get_context("fork")
        worker = context.Process(target=_child, args=(self.work, self.stopper.flag, os.getpid()), daemon=False)
        worker.start()
        self._workers.append(worker)


def fork_each(jobs: Sequence[Callable[[], object]], size: int, stopper: Stopper) -> None:
    """Runs functions in processes of their own, some at a time (in this one for a size of 0); a signal ends them."""
    waiting, running = list(jobs), list[Any]()
    context = multiprocessing.get_context("fork")
    told = False
    while size == 0 and waiting and stopper.received is None:
        waiting.pop(0)()
    while running or (waiting and stopper.received is None):
        while waiting and len(running) < size and stopper.received is None:
            sys.stdout.flush()
            sys.stderr.flush()
            process = context.Process(target=_child, args=(_once(waiting.pop(0)), stopper.flag, os.getpid()))
            process.start()
            running.append(process)
        if stopper.received is not None and not told:
            told = True
            for process in running:
                process.terminate()
        time.sleep(LOOK)
        running = [process for process in running if process.is_alive()]


def _once(job: Callable[[], object]) -> Work:
    def work(_stopping: Callable[[], bool], _stop: Callable[[], None]) -> int | None:
        job()
        return None

    return work


def _child(work: Work, flag: Flag, parent: int) -> None:
    """A worker's life: in a session of its own, so that a terminal's Ctrl-C reaches the parent alone."""
    os.setsid()
    die_with(parent)
    atexit._clear()  # what the parent registered is the parent's
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _end)
    code = 0
    try:
        ended = work(lambda: flag() or os.getppid() != parent, flag.set)
        code = 0 if ended is None or ended in (signal.SIGTERM, signal.SIGINT) else 128 + ended
    except SystemExit as end:
        code = 0 if end.code == 128 + signal.SIGTERM else end.code if isinstance(end.code, int) else 1
    except BaseException:
        import traceback

        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def die_with(parent: int) -> None:
    """Asks Linux for a SIGTERM when the parent dies; elsewhere the parent is looked for between two trials."""
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None, use_errno=True).prctl(1, signal.SIGTERM, 0, 0, 0)  # PR_SET_PDEATHSIG
    if os.getppid() != parent:
        os._exit(0)


def _end(_number: int, _frame: FrameType | None) -> None:
    """SIGTERM outside a run, which has a handler of its own."""
    raise SystemExit(128 + signal.SIGTERM)
