"""The range test as a fit whose rate grows from step to step."""

from __future__ import annotations

import math
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from torch import Tensor

from bigopt.train import finder
from bigopt.train._module import FitModule
from bigopt.train.data import EpochLoader
from bigopt.train.job import Job
from bigopt.train.optim import set_rate
from bigopt.train.plan import Plan
from bigopt.train.signals import Signals


class Listening(Callback):
    """Takes SIGTERM back from Lightning, as in every fit."""

    def __init__(self, signals: Signals) -> None:
        self.signals = signals

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Puts the handlers in place again."""
        if self.signals.installed:
            self.signals.install()


class RangeModule(FitModule):
    """A fit that writes down the loss at every rate, and stops where it is no number any more.

    Attributes:
        points: rate and loss of every optimizer step.
    """

    def __init__(self, job: Job, plan: Plan, seen: dict[str, Tensor], loader: EpochLoader, signals: Signals) -> None:
        super().__init__(job, plan, seen)
        self.loader = loader
        self.signals = signals
        self.points: list[tuple[float, float]] = []
        self.pending: list[float] = []

    def apply_rate(self) -> None:
        """Sets the next step's rate; groups keep their ratios."""
        set_rate(self.trainer.optimizers[0], finder.rate(self.step))

    def optimizer_step(self, epoch: int, batch_idx: int, optimizer: Any, optimizer_closure: Any = None) -> None:
        """One step, written down."""
        lr = finder.rate(self.step)
        super().optimizer_step(epoch, batch_idx, optimizer, optimizer_closure)
        loss = sum(self.pending) / len(self.pending)
        self.pending = []
        finite = math.isfinite(loss)
        if finite:
            self.points.append((lr, loss))
        if not finite or self.step >= finder.STEPS or self.signals.received is not None:
            self.trainer.should_stop = True

    def on_train_epoch_end(self) -> None:
        """Goes on with the next epoch's batches."""
        self.epoch += 1
        self.batch = 0
        self.means.clear()
        self.loader.go_to(self.epoch)

    def _check(self, loss: Tensor) -> None:
        self.pending.append(torch.as_tensor(loss).item())
