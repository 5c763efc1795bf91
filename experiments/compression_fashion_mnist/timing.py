"""Latency of the first seed's files: interleaved in one process, each beside the uncompressed baseline."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from cells import SIZES, cells
from run import place

HERE = Path(__file__).parent
TIMES = HERE / "times.json"
BATCHES = (1, 256)
TOGETHER = 8
"""Files that are timed in turn with the baseline; more would need much memory at the large batch."""


def times(widths: list[int]) -> None:
    """Measures every file that is there and writes times.json."""
    from bigopt.report.machine import environment
    from bigopt.store import write_json

    found: dict[str, Any] = json.loads(TIMES.read_text()) if TIMES.is_file() else {}
    for width in widths:
        files = {
            cell.name: path
            for cell in cells(width)
            if (path := place(width, SIZES[width].seeds[0], cell.name) / "model.onnx").is_file()
        }
        if files:
            found[str(width)] = _measure(files, place(width, SIZES[width].seeds[0], "") / "baseline.onnx")
    found["environment"] = environment()
    write_json(TIMES, found)


def _measure(files: dict[str, Path], baseline: Path) -> dict[str, dict[str, float]]:
    import torch

    from bigopt.measure._latency import latency_rounds

    example, names, found = torch.rand(256, 1, 28, 28), list(files), {}
    for start in range(0, len(names), TOGETHER):
        some = {name: files[name] for name in names[start : start + TOGETHER]}
        rounds = latency_rounds({"baseline": baseline, **some}, example, BATCHES, repeats=30, limit=1.0)
        for name in some:
            found[name] = {f"speedup_{batch}": one.speedup(name, "baseline") for batch, one in rounds.items()} | {
                f"p50_{batch}": one.percentiles(name)["p50"] for batch, one in rounds.items()
            }
            print(name, found[name], flush=True)
    return found
