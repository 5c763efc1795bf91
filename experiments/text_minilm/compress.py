"""The encoder with LoRA merged into it, then with integer weights: one run of the command, seed 1."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

SETTINGS = (
    "experiment=minilm",
    "transfer=fine_tuning",
    "transfer.adapter=lora",
    "compression=[quantization]",
    "compression.quantization.mode=dynamic",
    "compression.quantization.recover.epochs=0",
    "dataset.max_length=32",
    "dataset.labels_per_class=16",
    "dataset.val=0.15",
    "dataset.test=0.2",
    "trainer.max_epochs=6",
    "optimizer.lr=5e-3",
    "scheduler.warmup=0.1",
    "measure.large_batch=32",
    "measure.repeats=10",
    "tracking=none",
    "cache=off",
    "seed=1",
)


def compress(texts: Path) -> dict[str, dict[str, Any]]:
    """Rows for the merged float encoder and for the integers.

    Raises:
        AssertionError: something of the adapters is left in the exported file.
    """
    import onnx

    with TemporaryDirectory() as place:
        command = [sys.executable, "-m", "bigopt", *SETTINGS, f"dataset.path={texts}"]
        subprocess.run(command, cwd=place, check=True, stdout=subprocess.DEVNULL)
        folder = next(Path(place).glob("outputs/**/report.json")).parent
        report = json.loads((folder / "report.json").read_text())
        graph = onnx.load(folder / "model.onnx").graph
        assert not [one.name for one in graph.initializer if "lora" in one.name.lower()]
    test = report["test"]
    names = (("LoRA, merged", "baseline"), ("LoRA, merged, 8-bit integers", "final"))
    rows = {}
    for (name, split), stage in zip(names, (report["stages"][0], report["stages"][-1]), strict=True):
        rows[name] = {
            "bytes": stage["bytes"],
            "size_ratio": stage["size_ratio"],
            "test": test[split]["test/accuracy"],
            "drop": stage["drop"],
            "drop_interval": stage["drop_interval"],
            "speedup_1": stage["speedup"]["batch_1"],
            "speedup_32": stage["speedup"]["batch_32"],
        }
    return rows
