"""How a model does on inputs that are worse than those it was trained on, and how far its confidence can be trusted."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bigopt.measure._corruptions import CorruptedSplit, corruptions, seed_of
from bigopt.measure.calibration import class_accuracies, expected_calibration_error
from bigopt.measure.session import predict_onnx
from bigopt.vocabulary.data import Schema, Split
from bigopt.vocabulary.errors import RequestError
from bigopt.vocabulary.objective import Monitor
from bigopt.vocabulary.run import History
from bigopt.vocabulary.task import Task

TRAIN_ROWS = 10_000  # of the training split that the gap is measured on at most
NEAR = 0.05  # share of a best value by which the target of "epochs to a target" falls short of it

Predict = Callable[[Split], Tensor]


def robustness(
    model: Path | Predict,
    split: Split,
    schema: Schema,
    task: Task,
    severities: Sequence[int] = (1, 3, 5),
    seed: int = 0,
    *,
    train: Split | None = None,
    batch_size: int = 1024,
) -> dict[str, Any]:
    """Evaluates a model on corrupted inputs, and judges its answers on the clean ones more closely.

    Images get Gaussian noise and blur, brightness, contrast, rotation, translation, erasing and JPEG compression
    (kornia's, strengths after Hendrycks and Dietterich 2019, arXiv:1903.12261), tabular data noise on the features,
    text dropped tokens. A sample is spoiled in the same way for every model and at every severity.

    Args:
        model: an ONNX file, or a function that gives the logits of a split.
        split: validation split.
        schema: its schema.
        task: its metrics; accuracy is reported for classification, RMSE for regression.
        severities: from 1 (weak) to 5.
        seed: of the corruptions.
        train: training split, for the gap (at most 10,000 rows of it); None leaves the gap out.
        batch_size: rows of one call of the file.

    Returns:
        plain values: ``metric`` (its name), ``clean``, ``corruptions`` (metric by name and severity), ``means`` (over
        the severities, by name), ``mean`` (over the corruptions), ``worst_class`` (``class``, ``accuracy``; None for
        regression), ``calibration_error`` (15 bins; None for regression), ``train_val_gap`` (how much worse the
        metric is on validation than on training; None without ``train``).

    Raises:
        RequestError: a severity is not in 1 to 5, or there is none.
    """
    if not severities or any(severity not in range(1, 6) for severity in severities):
        raise RequestError(f"evaluate.severities: got {list(severities)}, expected one or more of 1 to 5")
    predict: Predict = model if callable(model) else lambda rows: predict_onnx(model, rows, batch_size)
    metric = "accuracy" if task.name == "classification" else "rmse"

    def value(rows: Split) -> float:
        return task.metrics(predict(rows), rows.y)[metric]

    logits = predict(split)
    clean = task.metrics(logits, split.y)[metric]
    spread = _spread(train if train is not None else split) if schema.kind == "tabular" else None
    table = {
        name: {
            severity: value(CorruptedSplit(split, corruption, severity, seed_of(seed, name))) for severity in severities
        }
        for name, corruption in corruptions(schema, spread).items()
    }
    means = {name: statistics.fmean(row.values()) for name, row in table.items()}
    return {
        "metric": metric,
        "clean": clean,
        "corruptions": {name: {str(severity): got for severity, got in row.items()} for name, row in table.items()},
        "means": means,
        "mean": statistics.fmean(means.values()),
        **_answers(logits, split.y, schema, task),
        "train_val_gap": _gap(value(_some(train, seed)), clean, metric) if train is not None else None,
    }


def robustness_metrics(result: dict[str, Any]) -> dict[str, float]:
    """The numbers of a result of :func:`robustness` under flat names ``robustness/…``, those without a value left out.

    ``robustness/<corruption>`` (mean over the severities), ``robustness/mean``, ``robustness/worst_class``,
    ``robustness/calibration_error``, ``robustness/train_val_gap``, ``robustness/epochs_to_target``.
    """
    worst = result["worst_class"]
    values = {
        **result["means"],
        "mean": result["mean"],
        "worst_class": worst["accuracy"] if worst else None,
        "calibration_error": result["calibration_error"],
        "train_val_gap": result["train_val_gap"],
        "epochs_to_target": result.get("epochs_to_target"),
    }
    return {f"robustness/{name}": float(value) for name, value in values.items() if value is not None}


def epochs_to_target(history: Sequence[History], monitor: Monitor, target: float) -> int | None:
    """Epochs, counted over all trainings given, until the monitored metric was first as good as the target.

    Returns:
        None if it never was.
    """
    epochs = [epoch for fit in history for epoch in fit.epochs]
    values = (epoch.get(monitor.metric, float("nan")) for epoch in epochs)
    reached = (place for place, value in enumerate(values, 1) if value == target or monitor.better(value, target))
    return next(reached, None)


def near(best: float, monitor: Monitor) -> float:
    """A target within 5% of a best value."""
    slack = NEAR * abs(best)
    return best - slack if monitor.mode == "max" else best + slack


@dataclass
class _Rows:
    """Some rows of a split."""

    split: Split
    index: Tensor

    def __post_init__(self) -> None:
        self.y = self.split.y[self.index]
        self.in_memory = self.split.in_memory

    def __len__(self) -> int:
        return len(self.index)

    def take(self, index: Tensor) -> Tensor:
        return self.split.take(self.index[index])


def _some(split: Split, seed: int) -> Split:
    if len(split) <= TRAIN_ROWS:
        return split
    order = torch.randperm(len(split), generator=torch.Generator().manual_seed(seed))
    return _Rows(split, order[:TRAIN_ROWS].sort().values)


def _spread(split: Split) -> Tensor:
    """Standard deviation of every feature, over at most 10,000 rows."""
    return split.take(torch.arange(min(len(split), TRAIN_ROWS))).double().std(0, correction=0)


def _gap(train: float, val: float, metric: str) -> float:
    return train - val if metric == "accuracy" else val - train


def _answers(logits: Tensor, y: Tensor, schema: Schema, task: Task) -> dict[str, Any]:
    """The worst class and the calibration of a classifier."""
    if task.name != "classification":
        return {"worst_class": None, "calibration_error": None}
    by_class = class_accuracies(logits, y)
    worst = min(by_class, key=by_class.__getitem__)
    name = schema.class_names[worst] if worst < len(schema.class_names) else str(worst)
    return {
        "worst_class": {"class": name, "accuracy": by_class[worst]},
        "calibration_error": expected_calibration_error(logits, y),
    }
