"""What happens in a fit: σ goes down, or a sparse representation stays sparse; imported only when a fit starts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from pytorch_lightning.callbacks import Callback

LAST = "gaussian_constraint/epoch"
"""Metric by which a fit keeps its last epoch: earlier ones were trained with a larger σ."""


class Anneal(Callback):
    """Lowers σ over a fit, and takes a step after each optimizer step.

    Args:
        tell: told the share of the fit that is done, before each batch.
        descend: takes the step, with the learning rate of the optimizer's; None for none.
    """

    def __init__(self, tell: Callable[[float], None], descend: Callable[[float], None] | None) -> None:
        self.tell = tell
        self.descend = descend
        self.step = 0

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Remembers where an interrupted fit was."""
        self.step = pl_module.step

    def on_train_batch_start(self, trainer: Any, pl_module: Any, *_: Any) -> None:
        """Tells where the fit is; from its own count of steps, which a checkpoint restores."""
        job = pl_module.job
        self.tell(min(1.0, pl_module.step / max(1, job.epochs * job.steps_per_epoch - 1)))

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *_: Any) -> None:
        """Takes the step."""
        if self.descend is not None and pl_module.step != self.step:
            self.descend(pl_module.rate)
        self.step = pl_module.step

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Logs the epoch."""
        pl_module.log_dict({LAST: float(pl_module.epoch + 1)}, on_epoch=True, on_step=False)


class Project(Callback):
    """Restores sparsity after each batch.

    Args:
        project: does it.
    """

    def __init__(self, project: Callable[[], None]) -> None:
        self.project = project

    @torch.no_grad()
    def on_train_batch_end(self, *_: Any) -> None:
        """Projects."""
        self.project()
