"""A callback for methods that warm a penalty up and choose the epoch by loss plus penalty; imported with a fit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback

from bigopt_plugins.compression._noisy import Warm


def steps(trainer: pl.Trainer) -> int:
    """Optimizer steps of the whole fit."""
    return max(1, int(trainer.estimated_stepping_batches))


def progress(trainer: pl.Trainer, warmup: float) -> float:
    """How much of a warm-up over this share of the steps is over, from 0 to 1."""
    return min(1.0, trainer.global_step / (warmup * steps(trainer))) if warmup > 0 else 1.0


def validation_loss(module: pl.LightningModule) -> float:
    """Of the epoch that just ended."""
    values: dict[str, float] = module.values  # type: ignore[assignment]
    return values["val/loss"]


class Warming(Callback):
    """Warms a penalty up, and logs what the best epoch is chosen by.

    Args:
        warm: holds ``share``, how much of the penalty acts.
        warmup: share of the fit's steps over which it rises to 1.
        name: what the objective is logged as.
        penalty: the full penalty, in nats.
    """

    def __init__(self, warm: Warm, warmup: float, name: str, penalty: Callable[[], float]) -> None:
        self.warm = warm
        self.warmup = warmup
        self.name = name
        self.penalty = penalty

    def on_train_batch_start(self, trainer: pl.Trainer, *_: Any) -> None:
        """Warms up."""
        self.warm.share.fill_(progress(trainer, self.warmup))

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Logs."""
        pl_module.log(self.name, validation_loss(pl_module) + self.penalty())
