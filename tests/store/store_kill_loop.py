"""Kills a writer again and again, at random moments and at the commit; run in a process of its own that may fork.

Usage: store_kill_loop.py <writer> <folder> <kills> <seed>
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

from store_writers import WRITERS, Writer

from bigopt.store import atomic, reap

SIZE = 20_000
COMMITS_A_WRITE = {"store": 2, "generations": 2, "journal": 0}


def pause_around_commit(tell: Callable[[str], None], number: int, after: bool) -> None:
    """Stops for good right before or right after the ``number``-th replace."""
    rename, seen = atomic._rename, [0]

    def paused(temporary: Path, path: Path) -> None:
        seen[0] += 1
        if seen[0] == number and not after:
            tell("pause")
            time.sleep(60)
        rename(temporary, path)
        if seen[0] == number and after:
            tell("pause")
            time.sleep(60)

    atomic._rename = paused


def pause_inside_append(tell: Callable[[str], None], number: int, share: float) -> None:
    """Stops when only a part of the ``number``-th record of a journal is written."""
    write, seen = os.write, [0]

    def partial(descriptor: int, data: bytes) -> int:
        if descriptor == pipe_of[0] or len(data) < SIZE:
            return write(descriptor, data)
        seen[0] += 1
        if seen[0] < number:
            return write(descriptor, data)
        write(descriptor, bytes(data)[: int(len(data) * share)])
        tell("pause")
        time.sleep(60)
        return 0

    os.write = partial


pipe_of = [0]


def child(writer: Writer, name: str, folder: Path, start: int, pipe: int, aimed: bool, rng: random.Random) -> None:
    pipe_of[0] = pipe
    write_to_pipe = os.write

    def tell(line: str) -> None:
        write_to_pipe(pipe, f"{line}\n".encode())

    commits = COMMITS_A_WRITE.get(name, 1)
    if aimed and commits:
        pause_around_commit(tell, rng.randint(1, 2 * commits), after=rng.random() < 0.5)
    elif aimed:
        pause_inside_append(tell, rng.randint(1, 3), rng.random())
    tell("ready")
    for version in range(start, start + 1_000_000):
        writer.write(folder, version, SIZE)
        tell(f"done {version}")


def kill_once(writer: Writer, name: str, folder: Path, start: int, aimed: bool, rng: random.Random) -> int:
    """Runs the writer until it is killed; returns the last version that it said was written (or start - 1)."""
    out, into = os.pipe()
    seed = rng.random()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            os.close(out)
            child(writer, name, folder, start, into, aimed, random.Random(seed))
        except BaseException as error:
            print(f"writer failed: {error!r}", file=sys.stderr, flush=True)
        finally:
            os._exit(code)
    os.close(into)
    lines = os.fdopen(out)
    assert lines.readline() == "ready\n"
    seen: list[str] = []
    if aimed:
        while (line := lines.readline()) and line != "pause\n":
            seen.append(line)
        assert line == "pause\n", "the writer ended by itself"
    else:
        seen.append(lines.readline())  # a write is done, however busy the machine is; then any moment
        time.sleep(rng.random() * 0.04)
    os.kill(pid, signal.SIGKILL)
    assert os.WIFSIGNALED(os.waitpid(pid, 0)[1]), "the writer ended by itself"
    seen += lines.readlines()
    lines.close()
    return max([start - 1, *(int(line.split()[1]) for line in seen if line.startswith("done"))])


def main(name: str, folder: Path, kills: int, seed: int) -> None:
    writer, rng = WRITERS[name], random.Random(seed)
    writer.write(folder, 0, SIZE)
    current, left_behind = 0, 0
    for kill in range(kills):
        confirmed = kill_once(writer, name, folder, current + 1, kill % 2 == 0, rng)
        left_behind += len(reap(folder, recursive=True))
        current = writer.read(folder)
        assert current in (confirmed, confirmed + 1), f"kill {kill}: confirmed {confirmed}, found {current}"
    assert not [p for p in folder.rglob("*") if atomic.is_temporary(p)], "orphans stayed"
    print(f"{kills} kills, {current} versions, {left_behind} orphans reaped")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
