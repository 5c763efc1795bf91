"""Which of two models ships, and what both together would give."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn

from bigopt.measure import count
from bigopt.train import predict
from bigopt.vocabulary.run import Run

Ship = Literal["best", "first", "second"]


def ensemble(outputs: list[Tensor], classes: bool) -> Tensor:
    """Outputs ``(N, K)`` of an ensemble: logarithm of the mean of the probabilities, or the mean of predictions."""
    if not classes:
        return torch.stack(outputs).mean(0)
    return torch.stack([each.softmax(1) for each in outputs]).mean(0).clamp_min(1e-30).log()


def compared(run: Run, models: dict[str, nn.Module], name: str = "ensemble") -> list[dict[str, Any]]:
    """One row for each model and one for all of them together, on validation.

    Args:
        run: gives the validation split.
        models: by name; in the modes and on the devices they are in.
        name: of the ensemble's row.

    Returns:
        rows with ``model``, the task's metrics as ``val/…``, ``parameters`` and ``macs`` of one sample.
    """
    split, example = run.data.val, run.data.val.take(torch.arange(1))
    outputs = {each: predict(model, split, run.settings.trainer.eval_batch_size) for each, model in models.items()}
    costs = {each: count(model, example) for each, model in models.items()}
    classes = run.task.name == "classification"
    judged = {**outputs, name: ensemble(list(outputs.values()), classes)}
    rows = []
    for each, values in judged.items():
        spent = [costs[each]] if each in costs else list(costs.values())
        rows.append(
            {"model": each}
            | {f"val/{metric}": value for metric, value in run.task.metrics(values, split.y).items()}
            | {"parameters": sum(c.parameters for c in spent), "macs": sum(c.macs for c in spent)}
        )
    return rows


def winner(run: Run, rows: list[dict[str, Any]], ship: Ship) -> str:
    """``first`` or ``second``: as asked, or the better one by the run's monitor; the first where they are equal."""
    if ship != "best":
        return ship
    metric = run.monitor.metric if run.monitor.metric in rows[0] else "val/loss"
    values = {row["model"]: row[metric] for row in rows}
    better = run.monitor.better if metric == run.monitor.metric else lambda new, old: new < old
    return "second" if better(values["second"], values["first"]) else "first"
