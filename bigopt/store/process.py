"""Who a process is, so that what it left behind can be told from what it still uses."""

from __future__ import annotations

import hashlib
import os
import platform
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

CLOCK_SLACK = 2.0  # seconds by which psutil's start time of one process may differ between two readings


@dataclass(frozen=True)
class Owner:
    """A process, told apart from every other one on every machine that shares the folder.

    Attributes:
        host: hash of the machine and its process namespace (two containers do not see each other's processes).
        boot: hash of the machine's boot.
        pid: process id.
        started: when the process started, in ticks or seconds since boot or epoch; a reused pid has another one.
    """

    host: str
    boot: str
    pid: int
    started: int

    def __str__(self) -> str:
        return f"{self.host}-{self.boot}-{self.pid}-{self.started}"

    @classmethod
    def parse(cls, text: str) -> Owner | None:
        """The owner that ``str(owner)`` gave; None for anything else."""
        parts = text.split("-")
        if len(parts) != 4 or not (parts[2].isdecimal() and parts[3].isdecimal()):
            return None
        return cls(parts[0], parts[1], int(parts[2]), int(parts[3]))

    def alive(self) -> bool | None:
        """Whether the process still runs; None when it belongs to another machine, where nobody here can know."""
        host, boot = _machine()
        if self.host != host:
            return None
        if self.boot != boot:
            return False
        started = _started(self.pid)
        return started is not None and abs(started - self.started) <= _slack()


def me() -> Owner:
    """This process (also right in a forked child)."""
    return _owner(os.getpid())


@lru_cache(maxsize=4)
def _owner(pid: int) -> Owner:
    host, boot = _machine()
    return Owner(host, boot, pid, _started(pid) or 0)


@lru_cache(maxsize=1)
def _machine() -> tuple[str, str]:
    """Hashes of the machine (with its process namespace) and of its boot."""
    namespace = ""
    try:
        namespace = os.readlink("/proc/self/ns/pid")
    except OSError:
        pass  # not Linux: one namespace a machine
    host = "|".join((platform.node(), _text("/etc/machine-id"), namespace))
    return _short(host), _short(_text("/proc/sys/kernel/random/boot_id"))


def _started(pid: int) -> int | None:
    """When this process started; None when there is no such process, or only its unburied entry."""
    if Path("/proc/self/stat").exists():
        fields = _text(f"/proc/{pid}/stat").rpartition(")")[2].split()  # the name may hold spaces and brackets
        return None if not fields or fields[0] in "ZX" else int(fields[19])
    import psutil

    try:
        return int(psutil.Process(pid).create_time())
    except psutil.Error:
        return None


def _slack() -> float:
    return 0.0 if Path("/proc/self/stat").exists() else CLOCK_SLACK


def _text(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""


def _short(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:10]
