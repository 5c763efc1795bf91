"""Optuna's journal on a file that survives kills: the system gives its lock back, and a torn tail is cut off."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from optuna.storages.journal import BaseJournalBackend

from bigopt.store import Journal


class JournalFile(BaseJournalBackend):
    """Records of a study, one JSON line each; any number of processes may append.

    Args:
        path: the file; it is created with the first record.
    """

    def __init__(self, path: str | Path) -> None:
        self._journal = Journal(path)
        self._known = (0, 0)  # number of a record, and the offset at which it starts

    def read_logs(self, log_number_from: int) -> Iterator[dict[str, Any]]:
        """Complete records from this number on; what a killed process left half-written is passed over."""
        number, offset = self._known if self._known[0] <= log_number_from else (0, 0)
        for record, end in self._journal.records(offset):
            number += 1
            self._known = (number, end)
            if number > log_number_from:
                yield record

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Appends records, all of them or none."""
        self._journal.append(*logs)
