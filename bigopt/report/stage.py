"""One row of the ledger, and how values become plain JSON."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, is_dataclass
from pathlib import Path
from typing import Any


@dataclass
class Stage:
    """What one stage of a run left behind, measured on the file that would be deployed.

    Attributes:
        name: the stage's name; unique within a run.
        plugin: the compression plugin behind it; None for the baseline and the control.
        metrics: validation metrics with their split's prefix, such as ``val/accuracy``.
        drop: how much worse the first objective is than the baseline's (positive: worse); None where it has no value.
        drop_interval: paired interval of the drop; None for objectives that no validation prediction decides.
        recovery_epochs: epochs trained after the step.
        parameters: number of parameters.
        nonzero: parameters that are not zero.
        macs: multiply-accumulate operations of one sample.
        bops: ``macs`` × weight bits × activation bits.
        bytes: size of the ONNX file without the exporter's metadata.
        bytes_zip: size of the same file compressed.
        latency_ms: ``p50`` and ``p95`` in milliseconds, by batch size (``batch_1``, …).
        size_ratio: how many times smaller than the baseline the file is.
        speedup: how many times faster than the baseline, by batch size; paired.
        seconds: wall time of the stage without measuring.
        notes: what a reader should know, one line each.
        values: further JSON-able facts about the stage.
        history: one mapping per fit: ``name``, ``epochs``, ``best_epoch``, ``seconds``, ``cached``, ``notes``.
    """

    name: str
    plugin: str | None
    metrics: dict[str, float]
    drop: float | None
    drop_interval: tuple[float, float] | None
    recovery_epochs: int
    parameters: int | None
    nonzero: int | None
    macs: int | None
    bops: int | None
    bytes: int | None
    bytes_zip: int | None
    latency_ms: dict[str, dict[str, float]]
    size_ratio: float | None
    speedup: dict[str, float]
    seconds: float
    notes: list[str] = field(default_factory=list)
    values: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)


def plain(value: Any) -> Any:
    """The value as JSON can hold it: non-finite numbers are None, tuples lists, arrays nested lists, paths text."""
    if value is None or isinstance(value, bool | str | int):
        return value
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if is_dataclass(value) and not isinstance(value, type):
        return plain(asdict(value))
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item) for item in value]
    if hasattr(value, "tolist"):  # numpy scalars and arrays, tensors
        return plain(value.tolist())
    return str(value)


def value_of(row: Mapping[str, Any], name: str) -> float | None:
    """The value that an objective names in a stage's row: a metric, a field, or a dotted path.

    Args:
        row: one entry of ``stages`` of a report.
        name: ``val/accuracy``, ``bytes``, ``speedup.batch_1``, ``latency_ms.batch_1.p50``, …

    Returns:
        The finite value, or None where the row has none of that name.
    """
    found: Any = row.get("metrics", {}).get(name)
    if found is None:
        found = row
        for key in name.split("."):
            found = found.get(key) if isinstance(found, Mapping) else None
    if isinstance(found, bool) or not isinstance(found, int | float) or not math.isfinite(found):
        return None
    return found


def row_of(
    name: str,
    plugin: str | None,
    measure: Any,
    *,
    recovery_epochs: int,
    seconds: float,
    history: Sequence[Any] = (),
) -> Stage:
    """A row of what was measured; its drop is for others to judge.

    Args:
        name: the stage's name.
        plugin: the plugin behind it.
        measure: like ``bigopt.measure.StageMeasure``; metrics without a split's prefix are validation's.
        recovery_epochs: epochs trained after the step.
        seconds: wall time without measuring.
        history: :class:`~bigopt.vocabulary.run.History` (or mappings like it) of the stage's fits.
    """
    facts = {
        "max_abs_diff": measure.max_abs_diff,
        "agreement": measure.agreement,
        "measure_seconds": measure.seconds,
        "weight_bits": getattr(measure, "weight_bits", None),
        "robustness": getattr(measure, "robustness", None) or None,
    }
    return Stage(
        name=name,
        plugin=plugin,
        metrics={key if "/" in key else f"val/{key}": value for key, value in measure.metrics.items()},
        drop=None,
        drop_interval=None,
        recovery_epochs=recovery_epochs,
        parameters=measure.parameters,
        nonzero=measure.nonzero,
        macs=measure.macs,
        bops=measure.bops,
        bytes=measure.bytes,
        bytes_zip=measure.bytes_zip,
        latency_ms=measure.latency_ms or {},
        size_ratio=measure.size_ratio,
        speedup=measure.speedup or {},
        seconds=seconds,
        values=plain({key: value for key, value in facts.items() if value is not None}),
        history=[plain(fit) for fit in history],
    )


def exported(measure: Any, folder: Path) -> dict[str, Any] | None:
    """The report's ``onnx`` section for a stage's file, its path relative to the run's folder; None without a file."""
    if measure.onnx is None:
        return None
    path = Path(measure.onnx)
    place = path.relative_to(folder).as_posix() if path.is_relative_to(folder) else path.name
    return {"path": place, "max_abs_diff": measure.max_abs_diff, "agreement": measure.agreement}
