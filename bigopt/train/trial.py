"""A few training steps on a copy of the model, to decide something by; the fit itself starts untouched."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from bigopt.data.batches import batches
from bigopt.train.modes import start_training
from bigopt.train.optim import build_optimizer, default_groups
from bigopt.vocabulary.batch import Batch

if TYPE_CHECKING:
    from bigopt.train.job import Job
    from bigopt.train.plan import Plan


class Trial:
    """Plain training of a copy: the task's loss, the run's optimizer, no Parts.

    Args:
        job: gives model, data and settings.
        plan: how to compute.
    """

    def __init__(self, job: Job, plan: Plan) -> None:
        self.job = job
        self.plan = plan
        self.device = torch.device(plan.accelerator)
        self.model = copy.deepcopy(job.run.model).to(self.device)
        if plan.channels_last:
            self.model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        start_training(self.model)
        settings = job.run.settings.optimizer
        groups = [g for g in default_groups(self.model.parameters(), settings, job.lr) if g["params"]]
        self.optimizer = build_optimizer(groups, settings, fused=False) if groups else None
        self._batches: Iterator[Batch] = iter(())
        self._epoch = 0

    def step(self) -> Tensor:
        """One step; gives the loss before it."""
        batch = self._next()
        x, y = batch.x.to(self.device), batch.y
        if self.plan.channels_last and x.ndim == 4:
            x = x.contiguous(memory_format=torch.channels_last)
        with self.autocast():
            logits = self.model(x).float()
            loss = logits.square().mean() if y is None else self.job.run.task.loss(logits, y.to(self.device))
        if self.optimizer is not None:
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
        return loss.detach()

    def autocast(self) -> AbstractContextManager[object]:
        """The plan's precision."""
        return torch.autocast(self.device.type, self.plan.dtype) if self.plan.dtype is not None else nullcontext()

    def _next(self) -> Batch:
        batch = next(self._batches, None)
        while batch is None:
            self._batches = batches(
                self.job.run.data.train,
                self.job.batch_size,
                seed=self.job.seed,
                epoch=self._epoch,
                drop_last=self.job.drop_last,
            )
            self._epoch += 1
            batch = next(self._batches, None)
        return batch
