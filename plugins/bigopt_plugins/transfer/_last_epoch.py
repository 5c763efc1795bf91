"""A callback for fits that no label may choose an epoch of; imported only when a fit starts."""

from __future__ import annotations

from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback

from bigopt.vocabulary.objective import Monitor
from bigopt.vocabulary.run import Run

EPOCH = "selection/epoch"


class LastEpoch(Callback):
    """Keeps the last epoch: while the fit lasts, an epoch is judged by its number.

    Args:
        run: whose monitor is set aside, and put back afterwards.
    """

    def __init__(self, run: Run) -> None:
        self.run = run
        self.monitor = run.monitor

    def on_train_start(self, *_: Any) -> None:
        """Sets the monitor aside."""
        self.run.monitor = Monitor(EPOCH, "max")

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Judges the epoch."""
        pl_module.log(EPOCH, float(pl_module.epoch + 1))  # type: ignore[arg-type, operator]

    def on_train_end(self, *_: Any) -> None:
        """Puts the monitor back."""
        self.run.monitor = self.monitor

    def on_exception(self, *_: Any) -> None:
        """Puts the monitor back."""
        self.run.monitor = self.monitor
