"""The grids, and where their recorded curves are kept; imports nothing heavy, since replays start often."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
EPOCHS = {"digits": 27, "fashion_mnist": 9}
GRIDS: dict[str, dict[str, list[Any]]] = {
    "digits": {
        "lr": [1e-4, 2.5e-4, 6.3e-4, 1.6e-3, 4e-3, 1e-2, 2.5e-2, 6.3e-2, 1.6e-1],
        "weight_decay": [0.0, 0.03, 1.0],
        "width": [8, 16, 32, 64],
        "batch_size": [32, 128],
        "augment": ["none", "shift"],
    },
    "fashion_mnist": {
        "lr": [1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 3e-1],
        "weight_decay": [0.01, 0.3],
        "width": [4, 10],
        "batch_size": [128, 512],
        "augment": ["none", "shift_flip"],
    },
}
DATA: dict[str, dict[str, Any]] = {
    "digits": {"val": 0.4, "test": 0.1},
    "fashion_mnist": {"limit": 10_000, "val": 0.05},
}


def configurations(dataset: str) -> list[dict[str, Any]]:
    """All points of a grid, one weight decay after the other, so that a part of it is a smaller grid."""
    grid = GRIDS[dataset]
    points = [dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())]
    return sorted(points, key=lambda point: grid["weight_decay"].index(point["weight_decay"]))


def path(dataset: str) -> Path:
    """Where a table is kept."""
    return HERE / f"{dataset}.jsonl"


def load(dataset: str) -> list[dict[str, Any]]:
    """The recorded lines, each configuration once; a torn last one is left out."""
    lines = path(dataset).read_text().splitlines() if path(dataset).is_file() else []
    found: dict[str, dict[str, Any]] = {}
    for line in lines:
        try:
            read = json.loads(line)
        except json.JSONDecodeError:
            continue
        found.setdefault(json.dumps(read["config"], sort_keys=True), read)
    return list(found.values())
