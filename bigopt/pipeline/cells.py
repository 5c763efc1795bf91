"""Cells of a sensitivity scan on disk, so that a scan that was cut off goes on where it was."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bigopt.vocabulary.part import Part
from bigopt.vocabulary.run import Run


class Cells:
    """Values that a scan has found so far, by layer and strength; written after each.

    Args:
        path: where they are kept; what another scan left there is not believed.
        key: what the values depend on (see :func:`cells_key`).
        writes: False on ranks other than the first.
    """

    def __init__(self, path: Path, key: str, writes: bool = True) -> None:
        self.path = path
        self.key = key
        self.writes = writes
        self._values = self._read()

    def __len__(self) -> int:
        return len(self._values)

    def get(self, layer: str, strength: float) -> float | None:
        """The value of a finished cell, or None."""
        return self._values.get(_name(layer, strength))

    def put(self, layer: str, strength: float, value: float) -> None:
        """Keeps the value of a cell.

        Raises:
            OSError: it could not be written; the cells before are intact.
        """
        from bigopt.store import write_json

        self._values[_name(layer, strength)] = value
        if self.writes:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            write_json(self.path, {"key": self.key, "cells": self._values})

    def _read(self) -> dict[str, float]:
        try:
            found: Any = json.loads(self.path.read_text())
            if found["key"] != self.key:
                return {}
            return {str(name): float(value) for name, value in found["cells"].items() if _is_number(value)}
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return {}


def cells_key(run: Run, part: Part) -> str:
    """SHA-256 in hex over everything that a scan's values follow from."""
    from dataclasses import asdict

    from bigopt.train.key import data_digest, describe, describe_part

    facts = {
        "model": describe(run.model),
        "part": describe_part(part),
        "data": run.data.fingerprint or data_digest(run.data),
        "monitor": asdict(run.monitor),
        "options": [list(run.options.ignore), run.options.strict],
        "seed": run.seed,
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()


def save_picture(path: Path, rows: Sequence[Mapping[str, Any]], metric: str) -> None:
    """Draws a scan as a PNG.

    Raises:
        OSError: it could not be written.
    """
    from bigopt.report.heatmap import draw_sensitivity
    from bigopt.report.plots import to_png
    from bigopt.store import write_atomic

    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, to_png(draw_sensitivity(rows, metric)))


def _name(layer: str, strength: float) -> str:
    return f"{layer}@{strength!r}"


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
