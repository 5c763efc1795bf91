"""Locks between processes. The system gives a lock back when its holder dies; time alone never takes it away."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bigopt.store.atomic import make_folder


@contextmanager
def lock(path: str | Path, timeout: float | None = None) -> Iterator[None]:
    """Holds a lock that one process at a time can hold.

    Args:
        path: what is locked; the lock's own file is ``<path>.lock`` (``path`` itself if it ends so) and stays.
        timeout: seconds to wait; None waits as long as it takes.

    Raises:
        TimeoutError: somebody else held it all the time.
        OSError: the lock's file cannot be created.
    """
    from filelock import FileLock, Timeout

    path = Path(path)
    file = path if path.suffix == ".lock" else path.with_name(path.name + ".lock")
    make_folder(file.parent)
    held = FileLock(file, timeout=-1 if timeout is None else timeout, poll_interval=0.02)
    try:
        held.acquire()
    except Timeout:
        raise TimeoutError(f"{file}: held by another process for more than {timeout} s") from None
    try:
        yield
    finally:
        held.release()


@contextmanager
def machine_lock(name: str, timeout: float | None = None) -> Iterator[None]:
    """Holds a lock that one process of this user on this machine at a time can hold, whatever its folder.

    Args:
        name: what must not happen twice at once, such as ``latency``.
        timeout: seconds to wait; None waits as long as it takes.

    Raises:
        TimeoutError: somebody else held it all the time.
        OSError: the folder for locks belongs to somebody else.
    """
    with lock(_lock_folder() / f"{name}.lock", timeout):
        yield


def _lock_folder() -> Path:
    """A private folder that all of this user's processes agree on, whatever their TMPDIR."""
    shared = Path("/tmp")
    root = shared if os.name == "posix" and os.access(shared, os.W_OK) else Path(tempfile.gettempdir())
    if os.name != "posix":
        folder = root / "bigopt-locks"
        folder.mkdir(exist_ok=True)
        return folder
    folder = root / f"bigopt-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.is_symlink() or folder.stat().st_uid != os.getuid():
        raise OSError(f"{folder}: belongs to another user; remove it")
    return folder
