"""What Parts tell the report, kept until it is known whether they matter."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from bigopt.vocabulary.run import Reporter


class Collected:
    """Keeps notes, tables and values of something that is only tried.

    Attributes:
        notes: lines, in order, without repeats.
        tables: rows by table name.
        values: facts by name.
    """

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.tables: dict[str, list[dict[str, Any]]] = {}
        self.values: dict[str, Any] = {}

    def note(self, text: str) -> None:
        """Keeps a line."""
        if text not in self.notes:
            self.notes.append(text)

    def table(self, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Keeps a table."""
        self.tables[name] = [dict(row) for row in rows]

    def value(self, name: str, value: Any) -> None:
        """Keeps a fact."""
        self.values[name] = value

    def replay(self, other: Reporter) -> None:
        """Tells another reporter everything that was kept."""
        for text in self.notes:
            other.note(text)
        for name, rows in self.tables.items():
            other.table(name, rows)
        for name, value in self.values.items():
            other.value(name, value)
