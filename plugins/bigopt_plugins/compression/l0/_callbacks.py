"""What happens between the steps of a fit with gates or balls; imported only when a fit starts."""

from __future__ import annotations

from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback

from bigopt_plugins.compression._warming import progress, steps, validation_loss
from bigopt_plugins.compression.l0._balls import UnitBall, WeightBall
from bigopt_plugins.compression.l0._control import OBJECTIVE, Control

INFEASIBLE = 100.0
"""Price of a violated constraint, in nats for the whole model; more than any loss."""

CAP = (0.4, 0.75)
"""Shares of the fit between which the cap on open gates falls from everything to what the constraint allows."""


class Gating(Callback):
    """Draws the gates' noise, warms the penalty up, moves the multiplier, and logs the expected number of weights.

    Args:
        control: the gates.
        warmup: share of the fit's steps over which the penalty rises.
        penalty: price of the whole model in nats; None where there is a constraint.
        limit: weights that the constraint allows.
        ascent: what the multiplier gains over a whole fit in which the constraint is violated by the whole model.
    """

    def __init__(self, control: Control, warmup: float, penalty: float | None, limit: float, ascent: float) -> None:
        self.control = control
        self.warmup = warmup
        self.penalty = penalty
        self.limit = limit
        self.ascent = ascent

    def on_train_batch_start(self, trainer: pl.Trainer, *_: Any) -> None:
        """Draws noise, warms up."""
        self.control.warm.fill_(progress(trainer, self.warmup))
        self.control.draw()

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        """Moves the multiplier and the cap."""
        if self.penalty is None:
            total = self.control.total
            self.control.ascend(self.limit / total, self.ascent / steps(trainer))
            fallen = (trainer.global_step / steps(trainer) - CAP[0]) / (CAP[1] - CAP[0])
            if fallen > 0:
                self.control.trim(int(total - (total - self.limit) * min(1.0, fallen)))

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Logs what the best epoch is chosen by."""
        share = float(self.control.expected().detach()) / self.control.total
        if self.penalty is not None:
            price = self.penalty * share
        else:
            price = INFEASIBLE * max(0.0, self.control.left() - self.limit) / self.control.total
            pl_module.log("l0/multiplier", float(self.control.multiplier))
        pl_module.log("l0/expected", share * self.control.total)
        pl_module.log("l0/left", float(self.control.left()))
        pl_module.log(OBJECTIVE, validation_loss(pl_module) + price)


class Projecting(Callback):
    """Projects after every step, onto a ball that shrinks to its size over the warm-up.

    Args:
        ball: what is projected.
        start: size before the fit.
        target: size in the end.
        warmup: share of the fit's steps over which the ball shrinks, along a cubic (Zhu and Gupta 2017).
    """

    def __init__(self, ball: WeightBall | UnitBall, start: float, target: float, warmup: float) -> None:
        self.ball = ball
        self.start = start
        self.target = target
        self.warmup = warmup
        self.done = 0.0

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        """Projects."""
        self.done = progress(trainer, self.warmup)
        self.ball.project(self.target + (self.start - self.target) * (1 - self.done) ** 3)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Logs the size, and what the best epoch is chosen by."""
        pl_module.log(f"l0/{self.ball.norm}_size", self.ball.size())
        pl_module.log(OBJECTIVE, validation_loss(pl_module) + INFEASIBLE * (1 - self.done))
