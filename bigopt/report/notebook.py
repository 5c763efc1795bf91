"""What Parts leave for the report while a stage is in progress."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bigopt.report.csv import rows_to_csv
from bigopt.report.stage import plain


class Notebook:
    """Collects notes, facts and tables until the next stage takes them (a :class:`~bigopt.vocabulary.run.Reporter`).

    Args:
        folder: the run's folder; tables are written under ``tables/`` in it.
        writes: False on ranks other than the first.
    """

    def __init__(self, folder: Path, writes: bool = True) -> None:
        self.folder = Path(folder)
        self.writes = writes
        self.tables: dict[str, dict[str, Any]] = {}
        self._notes: list[str] = []
        self._values: dict[str, Any] = {}

    def note(self, text: str) -> None:
        """One line for the reader, kept with the row that is added next; said once."""
        if text not in self._notes:
            self._notes.append(text)

    def value(self, name: str, value: Any) -> None:
        """A JSON-able fact about the stage that is added next."""
        self._values[name] = plain(value)

    def table(self, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """A table, written at once as ``tables/<name>.csv`` and shown in the report.

        Raises:
            OSError: it could not be written.
        """
        file = f"tables/{re.sub(r'[^A-Za-z0-9_-]+', '_', name)}.csv"
        self.tables[name] = {"stage": None, "file": file, "rows": plain(list(rows))}
        if self.writes:
            from bigopt.store import redact, write_atomic

            (self.folder / file).parent.mkdir(parents=True, exist_ok=True)
            write_atomic(self.folder / file, rows_to_csv(redact(plain(list(rows)))))

    def take(self, stage: str | None) -> tuple[list[str], dict[str, Any]]:
        """The notes and facts collected since the last call, which belong to this stage; so do new tables."""
        taken = self._notes, self._values
        self._notes, self._values = [], {}
        for table in self.tables.values():
            table["stage"] = table["stage"] or stage
        return taken
