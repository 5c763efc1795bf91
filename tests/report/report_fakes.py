from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from bigopt.report import Ledger
from bigopt.vocabulary.data import Data, Schema, TensorSplit
from bigopt.vocabulary.run import History
from bigopt.vocabulary.settings import Settings
from bigopt.vocabulary.task import Task

CLASSES = 4


def labels(n: int = 200) -> Tensor:
    return torch.arange(n) % CLASSES


def outputs(y: Tensor, wrong: range) -> Tensor:
    """Logits that are right everywhere but at these rows."""
    shown = y.clone()
    shown[list(wrong)] = (shown[list(wrong)] + 1) % CLASSES
    return 4.0 * torch.nn.functional.one_hot(shown, CLASSES).float()


def dataset(n: int = 200, name: str = "digits", notes: tuple[str, ...] = ()) -> Data:
    split = TensorSplit(torch.zeros(n, 1), labels(n))
    return Data(
        name,
        Schema("classification", "image", (1, 8, 8), CLASSES),
        split,
        split,
        split,
        notes=notes,
        fingerprint="f" * 64,
    )


def measure(logits: Tensor | None, y: Tensor, **changes: Any) -> SimpleNamespace:
    task = Task("classification", CLASSES)
    fields: dict[str, Any] = {
        "metrics": {} if logits is None else {f"val/{name}": value for name, value in task.metrics(logits, y).items()},
        "logits": logits,
        "parameters": 61706,
        "nonzero": 61706,
        "macs": 416520,
        "bops": 426516480,
        "bytes": 250112,
        "bytes_zip": 231004,
        "latency_ms": {"batch_1": {"p50": 0.11, "p95": 0.14}, "batch_256": {"p50": 20.1, "p95": 21.0}},
        "size_ratio": 1.0,
        "speedup": {"batch_1": 1.0, "batch_256": 1.0},
        "seconds": 0.5,
        "max_abs_diff": 1.2e-6,
        "agreement": 1.0,
        "onnx": None,
    }
    return SimpleNamespace(**(fields | changes))


def history(name: str, epochs: int = 3) -> History:
    rows = [
        {
            "epoch": float(e),
            "train/loss": 1.0 / e,
            "val/loss": 1.2 / e,
            "val/accuracy": 1 - 0.5 / e,
            "lr": 1e-3 / e,
            "seconds": 0.1,
        }
        for e in range(1, epochs + 1)
    ]
    return History(name, rows, best_epoch=epochs, seconds=0.1 * epochs)


def make_ledger(folder: Path, data: Data | None = None, settings: Settings | None = None, **more: Any) -> Ledger:
    data = data or dataset()
    return Ledger(folder, settings=settings or Settings(), data=data, task=Task.of(data.schema), **more)


def compressed(ledger: Ledger, **changes: Any) -> None:
    """Baseline, then a step that is 8 times smaller and wrong on 6 samples more."""
    y = ledger.data.val.y
    ledger.add(
        "baseline",
        None,
        measure(outputs(y, range(4)), y),
        recovery_epochs=0,
        seconds=3.2,
        history=[history("baseline")],
    )
    small = {"bytes": 31264, "size_ratio": 8.0, "speedup": {"batch_1": 2.0, "batch_256": 3.0}, "macs": 100000} | changes
    ledger.add(
        "pruning",
        "channel_pruning",
        measure(outputs(y, range(10)), y, **small),
        recovery_epochs=2,
        seconds=1.0,
        history=[history("pruning/recover", 2)],
    )
