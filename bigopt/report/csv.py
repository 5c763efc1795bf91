"""Rows of mappings as CSV text."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

_NOT_IN_CSV = ("history", "notes", "values")


def rows_to_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    """CSV text with one column per key, in the order in which keys first occur; missing values are empty."""
    columns = list(dict.fromkeys(str(key) for row in rows for key in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows({str(key): _cell(value) for key, value in row.items()} for row in rows)
    return text.getvalue()


def stages_to_csv(stages: Sequence[Mapping[str, Any]]) -> str:
    """One row per stage: nested fields as dotted columns, the interval as ``drop_low`` and ``drop_high``.

    Args:
        stages: the report's ``stages``.
    """
    return rows_to_csv([dict(_flat(stage)) for stage in stages])


def _flat(stage: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, value in stage.items():
        if name in _NOT_IN_CSV:
            continue
        if name == "drop_interval":
            low, high = value if value is not None else (None, None)
            yield "drop_low", low
            yield "drop_high", high
        elif name == "metrics":
            yield from value.items()
        else:
            yield from _dotted(name, value)


def _dotted(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _dotted(f"{name}.{key}", item)
    else:
        yield name, value


def _cell(value: Any) -> Any:
    return json.dumps(value) if isinstance(value, list | dict) else value
