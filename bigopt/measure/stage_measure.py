"""What was measured of one stage, and where it is kept."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bigopt.store import write_atomic, write_json


@dataclass
class StageMeasure:
    """What was measured of one stage.

    Attributes:
        name: the stage.
        metrics: of the file on the validation split, as ``val/…``; with ``evaluate=robustness`` also
            ``robustness/…``.
        logits: of the file on the validation split, ``(N, K)`` or ``(N, T)``.
        onnx: the file; None without export.
        parameters: as :func:`bigopt.measure.count` says.
        nonzero: those that are not zero.
        macs: of one sample.
        bops: of one sample.
        weight_bits: mean width of a parameter.
        bytes: size of the file; None without export.
        bytes_zip: size of the same file deflated.
        latency_ms: ``p50`` and ``p95`` by ``batch_1`` and the large batch; empty where latency is not measured.
        size_ratio: how many times smaller than the baseline's file.
        speedup: how many times faster than the baseline's file, paired, by batch.
        seconds: that measuring took.
        max_abs_diff: largest difference between the file's logits and the model's.
        agreement: share of rows where file and model give the same answer.
        notes: what a reader should know, one line each.
        robustness: result of :func:`bigopt.measure.robustness`; empty unless asked for.
    """

    name: str
    metrics: dict[str, float]
    logits: Tensor
    onnx: Path | None
    parameters: int
    nonzero: int
    macs: int
    bops: int
    weight_bits: float
    bytes: int | None = None
    bytes_zip: int | None = None
    latency_ms: dict[str, dict[str, float]] = field(default_factory=dict)
    size_ratio: float | None = None
    speedup: dict[str, float] = field(default_factory=dict)
    seconds: float = 0.0
    max_abs_diff: float | None = None
    agreement: float | None = None
    notes: list[str] = field(default_factory=list)
    robustness: dict[str, Any] = field(default_factory=dict)


def save_measure(stage: StageMeasure, folder: Path) -> None:
    """Writes ``logits.npy`` and ``measure.json`` beside the stage's file."""

    def fill(temporary: Path) -> None:
        with open(temporary, "wb") as file:
            np.save(file, stage.logits.numpy(), allow_pickle=False)

    write_atomic(folder / "logits.npy", fill)
    facts = asdict(replace(stage, logits=torch.empty(0), onnx=None))
    del facts["logits"], facts["onnx"]
    write_json(folder / "measure.json", facts)
