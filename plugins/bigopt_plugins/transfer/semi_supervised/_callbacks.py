"""A callback that tells a method how far its fit is, and lets its teacher follow; imported only when a fit starts."""

from __future__ import annotations

from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback

from bigopt_plugins.transfer.semi_supervised._mean_teacher import Average
from bigopt_plugins.transfer.semi_supervised._method import Method


class Following(Callback):
    """Sets ``progress`` before each step, and updates the teacher after each step of the optimizer.

    Args:
        method: the method.
        average: its teacher; None for methods without one.
    """

    def __init__(self, method: Method, average: Average | None) -> None:
        self.method = method
        self.average = average
        self._step = -1

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: Any, *_: Any) -> None:
        """Tells how far the fit is."""
        job = pl_module.job
        self._step = pl_module.step
        self.method.progress.fill_((pl_module.epoch * job.batches + pl_module.batch) / (job.epochs * job.batches))

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, *_: Any) -> None:
        """Lets the teacher follow, unless the batch only accumulated."""
        if self.average is not None and pl_module.step > self._step:
            self.average.update(pl_module.job.run.model)
