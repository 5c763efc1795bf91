"""Tables from CSV files, with the file and line in every complaint."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bigopt.data.files import nearest, need_file
from bigopt.vocabulary.errors import RequestError

MISSING = frozenset({"", "na", "n/a", "nan", "null", "?"})


@dataclass(frozen=True)
class Table:
    """A CSV file's rows.

    Attributes:
        path: the file.
        columns: values as text, by column name, in the file's order.
        lines: the file's line that each row ends on, for messages.
    """

    path: Path
    columns: dict[str, list[str]]
    lines: list[int]

    def __len__(self) -> int:
        return len(self.lines)

    def where(self, row: int, column: str) -> str:
        """How a message about one value begins."""
        return f"{self.path}, line {self.lines[row]}, column {column!r}"

    def need(self, column: str, key: str) -> list[str]:
        """A column by its name.

        Raises:
            RequestError: there is none of that name; nearest names offered.
        """
        if column not in self.columns:
            known = ", ".join(list(self.columns)[:20])
            raise RequestError(
                f"{key}: {self.path} has no column {column!r} (it has: {known}){nearest(column, self.columns)}"
            )
        return self.columns[column]

    def refuse_missing(self, column: str) -> None:
        """Raises RequestError if a value of the column is missing."""
        for row, value in enumerate(self.columns[column]):
            if value.strip().lower() in MISSING:
                raise RequestError(f"{self.where(row, column)}: the value is missing (got {value!r})")

    def numbers(self, column: str, hint: str = "") -> list[float]:
        """A column as finite numbers.

        Args:
            column: its name.
            hint: what to do about a value that is no number, for the message.

        Raises:
            RequestError: a value is missing, no number or not finite.
        """
        self.refuse_missing(column)
        found = []
        for row, value in enumerate(self.columns[column]):
            number = as_number(value)
            if number is None or not math.isfinite(number):
                what = "is not a number" if number is None else "is not finite"
                raise RequestError(f"{self.where(row, column)}: {value[:40]!r} {what}{hint}")
            found.append(number)
        return found

    def classes(self, column: str, key: str) -> tuple[list[int], tuple[str, ...]]:
        """Labels of every row and the class names: sorted, as numbers where all are numbers.

        Raises:
            RequestError: there is no such column, or a value is missing.
        """
        values = [value.strip() for value in self.need(column, key)]
        self.refuse_missing(column)
        numbers = {value: as_number(value) for value in values}
        if all(number is not None for number in numbers.values()):
            names = tuple(sorted(numbers, key=lambda value: (numbers[value] or 0.0, value)))
        else:
            names = tuple(sorted(numbers))
        place = {name: i for i, name in enumerate(names)}
        return [place[value] for value in values], names


def as_number(value: str) -> float | None:
    """The number that a text says, or None; Python's digit separators are no part of a CSV file."""
    try:
        return float(value) if "_" not in value else None
    except ValueError:
        return None


def read_table(path: str | Path, separator: str = ",", key: str = "dataset.path") -> Table:
    r"""Reads a CSV file with a header (UTF-8; quoted fields may hold separators and line breaks).

    Args:
        path: the file.
        separator: one character; the two characters ``\t`` mean a tab.
        key: the configuration's key, for messages.

    Raises:
        RequestError: the file is missing, is not UTF-8 text, has no rows, or a row has another number of fields than
            the header; says the line.
    """
    file = need_file(path, key)
    separator = separator.replace("\\t", "\t")
    if len(separator) != 1:
        raise RequestError(f"dataset.separator: got {separator!r}, expected one character")
    try:
        with file.open(encoding="utf-8-sig", newline="") as stream:
            return _read(csv.reader(stream, delimiter=separator, strict=True), file)
    except UnicodeDecodeError as error:
        raise RequestError(
            f"{file}: not UTF-8 text (byte 0x{error.object[error.start]:02x}: {error.reason})"
        ) from error
    except OSError as error:
        raise RequestError(f"{key}: {file} cannot be read ({error.strerror or error})") from error


def _read(reader: csv._reader, file: Path) -> Table:  # type: ignore[name-defined]
    rows: list[list[str]] = []
    lines: list[int] = []
    try:
        header = _header(next(reader, []), file)
        for row in reader:
            if not row:  # a blank line
                continue
            if len(row) != len(header):
                raise RequestError(
                    f"{file}, line {reader.line_num}: {len(row)} fields, but the header has {len(header)}"
                )
            if any("\0" in field for field in row):
                raise RequestError(f"{file}, line {reader.line_num}: a NUL byte; the file is no text table")
            rows.append(row)
            lines.append(reader.line_num)
    except csv.Error as error:
        raise RequestError(f"{file}, line {reader.line_num}: {error}") from error
    if not rows:
        raise RequestError(f"{file}: there are no rows after the header")
    return Table(file, {name: [row[i] for row in rows] for i, name in enumerate(header)}, lines)


def _header(row: Sequence[str], file: Path) -> list[str]:
    names = [name.strip() for name in row]
    if not names:
        raise RequestError(f"{file}: the file is empty")
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise RequestError(f"{file}, line 1: the header has the column {twice[0]!r} more than once")
    if all(as_number(name) is not None for name in names):
        raise RequestError(f"{file}, line 1: expected a header with column names, got numbers")
    return names
