"""An append-only file of JSON lines that survives being cut off anywhere."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from bigopt.store.atomic import make_folder, plain
from bigopt.store.locks import lock


class Journal:
    """Records in the order in which they were appended; any number of processes may append.

    A line that a killed process left half-written is cut off, under the lock, before anything is appended after it.

    Args:
        path: the file; it is created with the first record.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    def append(self, *records: Mapping[str, Any], durable: bool = False) -> None:
        """Appends records, all of them or none.

        Args:
            records: JSON-able mappings.
            durable: also wait until they are on the disk (a killed process loses nothing either way; a power cut may).

        Raises:
            OSError: they could not be written; what was there before is intact.
        """
        lines = "".join(json.dumps(plain(record), ensure_ascii=False) + "\n" for record in records).encode()
        make_folder(self.path.parent)
        with lock(self.path):
            descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
            try:
                self._append(descriptor, lines, durable)
            finally:
                os.close(descriptor)

    def read(self) -> Iterator[dict[str, Any]]:
        """Every complete record, oldest first; a torn tail and damaged lines are passed over."""
        return (record for record, _ in self.records())

    def records(self, offset: int = 0) -> Iterator[tuple[dict[str, Any], int]]:
        """Complete records from an offset on, each with the offset behind it, from which a later call can go on."""
        try:
            with open(self.path, "rb") as file:
                file.seek(offset)
                content = file.read()
        except FileNotFoundError:
            return
        for line in content.split(b"\n")[:-1]:
            offset += len(line) + 1
            try:
                record = json.loads(line)
            except ValueError:
                continue
            if isinstance(record, dict):
                yield record, offset

    def _append(self, descriptor: int, lines: bytes, durable: bool) -> None:
        end = _cut_torn_tail(descriptor)
        try:
            left = memoryview(lines)
            while left:
                left = left[os.write(descriptor, left) :]
            if durable:
                os.fsync(descriptor)
        except OSError:
            os.ftruncate(descriptor, end)
            raise


def _cut_torn_tail(descriptor: int, block: int = 1 << 16) -> int:
    """Cuts what follows the last newline off; returns the file's length."""
    size = end = os.fstat(descriptor).st_size
    while end > 0:
        start = max(0, end - block)
        newline = os.pread(descriptor, end - start, start).rfind(b"\n")
        if newline >= 0:
            end = start + newline + 1
            break
        end = start
    if end < size:
        os.ftruncate(descriptor, end)
    return end
