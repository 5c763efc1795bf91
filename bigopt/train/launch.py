"""Starts the other ranks of a run on this machine, and ends them with it."""

from __future__ import annotations

import os
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import IO

from bigopt.vocabulary.errors import BigoptError, RequestError, RunFailed

PIDS = "BIGOPT_RANK_PIDS"
"""Environment variable of rank 0: process ids of the others, so that it does not wait for dead ones."""

GRACE = 60.0
"""Seconds that the other ranks have to end after rank 0 is done; a few when it failed."""

TAIL = 5
"""Lines of a failed rank's error output that are shown."""


@dataclass
class _Rank:
    number: int
    process: subprocess.Popen[bytes]
    errors: IO[bytes]

    def failure(self) -> str | None:
        """What to say of a rank that ended by itself and not well; None for one that runs, or ended well."""
        code = self.process.poll()
        if not code:
            return None
        self.errors.seek(0)
        lines = self.errors.read().decode(errors="replace").strip().splitlines()
        said = f": {' | '.join(lines[-TAIL:])}" if lines else ""
        return f"rank {self.number} ended with code {code}{said}"


@contextmanager
def launch(command: Sequence[str], world_size: int, grace: float = GRACE) -> Iterator[None]:
    """Runs the block as rank 0 of ``world_size`` ranks; the others run ``command``.

    Every rank must run the same pipeline on the same configuration, which ``command`` therefore names as resolved.
    Ranks other than 0 say nothing: their output is dropped, the end of their errors is shown when they fail.

    Args:
        command: program and arguments; the rank is in its environment.
        world_size: number of ranks; 1 starts nothing.
        grace: seconds that the others have to end after the block.

    Raises:
        RunFailed: another rank failed.
    """
    if world_size < 1:
        raise RequestError(f"trainer.devices: got {world_size}, expected at least 1")
    if world_size == 1:
        yield
        return
    with ExitStack() as stack:
        shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(_free_port()), "WORLD_SIZE": str(world_size)}
        # torch's own advice on DDP's settings; heard in rank 0 where torch was imported before
        shared["TORCH_CPP_LOG_LEVEL"] = "ERROR"
        ranks = [_start(command, number, shared, stack) for number in range(1, world_size)]
        pids = ",".join(str(rank.process.pid) for rank in ranks)
        stack.enter_context(_environment(shared | {"RANK": "0", "LOCAL_RANK": "0", "NODE_RANK": "0", PIDS: pids}))
        stack.callback(_leave)
        try:
            yield
        except BaseException as error:
            _wait(ranks, 2.0)  # ranks that were told the same end by themselves
            first = next((text for text in map(_Rank.failure, ranks) if text is not None), None)
            if first is not None and isinstance(error, Exception) and not isinstance(error, BigoptError):
                raise RunFailed(first) from error  # rank 0 only noticed that its partner was gone
            raise
        _wait(ranks, grace)
        _check(ranks, grace)


def _check(ranks: list[_Rank], grace: float) -> None:
    for rank in ranks:
        failure = rank.failure()
        if rank.process.poll() is None:
            failure = f"rank {rank.number} did not end within {grace:g} s of rank 0"
        if failure is not None:
            raise RunFailed(failure)


def _start(command: Sequence[str], number: int, shared: dict[str, str], stack: ExitStack) -> _Rank:
    errors = stack.enter_context(tempfile.TemporaryFile())
    mine = {"RANK": str(number), "LOCAL_RANK": str(number), "NODE_RANK": "0"}
    process = subprocess.Popen(
        list(command), env={**os.environ, **shared, **mine}, stdout=subprocess.DEVNULL, stderr=errors
    )
    stack.callback(_end, process)
    return _Rank(number, process, errors)


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ends a rank that still runs."""
    if process.poll() is None:
        process.kill()
    process.wait()


def _wait(ranks: list[_Rank], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while any(rank.process.poll() is None for rank in ranks) and time.monotonic() < deadline:
        time.sleep(0.02)


def _leave() -> None:
    from bigopt.train.ddp import leave

    leave()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
    """Sets environment variables while the block runs."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def dead_rank() -> int | None:
    """Process id of another rank that has ended already, as rank 0 sees it; None while all run."""
    import psutil

    for pid in filter(None, os.environ.get(PIDS, "").split(",")):
        try:
            if psutil.Process(int(pid)).status() == psutil.STATUS_ZOMBIE:
                return int(pid)
        except psutil.NoSuchProcess:
            return int(pid)
    return None
