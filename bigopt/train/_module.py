"""The one LightningModule: calls the Parts' hooks in their order, sums the loss, keeps the means and the rates."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from bigopt.train import checkpoint, ddp
from bigopt.train.compile import compiled
from bigopt.train.data import to_device
from bigopt.train.ema import Average
from bigopt.train.job import Job
from bigopt.train.losses import loss_terms
from bigopt.train.means import Means
from bigopt.train.modes import follow_freezing
from bigopt.train.optim import build_groups, build_optimizer, match_layout, set_rate
from bigopt.train.plan import Plan
from bigopt.train.schedule import Plateau, factor
from bigopt.vocabulary.batch import Batch, Output
from bigopt.vocabulary.errors import RunFailed

if TYPE_CHECKING:
    from bigopt.train._loop import Closing
    from bigopt.train.record import State

CHECK_EVERY = 50
"""Batches between two looks at the loss on a GPU, where each look waits for the device."""


class FitModule(pl.LightningModule):
    """One fit: the model with the Parts' auxiliary modules.

    Attributes:
        job: what is to be done.
        plan: precision, memory format, compilation.
        step: optimizer steps taken.
        batch: batches done in this epoch.
        epoch: epochs finished.
        means: running means of the loss terms in this epoch.
        values: means and validation metrics of the epoch that just ended.
        average: the weights' moving average, or None.
        rate: learning rate of the last step.
        resume: checkpoint to go on from, until it is put back.
        seen: outputs of the tapped modules, filled by hooks that live as long as the fit.
    """

    def __init__(self, job: Job, plan: Plan, seen: dict[str, Tensor]) -> None:
        super().__init__()
        self.job = job
        self.plan = plan
        self.model = job.run.model
        self.auxiliary = nn.ModuleList(job.modules.values())
        self.seen = seen
        self.step = 0
        self.batch = 0
        self.epoch = 0
        self.means = Means()
        self.values: dict[str, float] = {}
        self.plateau = Plateau()
        self.average: Average | None = None
        self.rate = 0.0
        self.resume: State | None = None
        self.closing: Closing | None = None
        self._compiled: Callable[[Tensor], Tensor] | None = None

    def __setattr__(self, name: str, value: Any) -> None:
        """Sets plain values without asking whether they are parameters or modules.

        Lightning sets one at the start and the end of every hook, about 40 times a step.
        """
        if type(value) in (int, str, float):
            self.__dict__[name] = value
        else:
            super().__setattr__(name, value)

    def on_fit_start(self) -> None:
        """Starts what needs the weights on their device."""
        decay = self.job.run.settings.trainer.ema
        self.average = Average(self.model, decay) if decay is not None else None
        if self.plan.compile:
            self._compiled = compiled(self.model, self.job, self.plan)
        self._wrapped = {name for name, parameter in self.named_parameters() if parameter.requires_grad}
        self.apply_rate()

    def go_to(self, epoch: int, batch: int, step: int, rate: float) -> None:
        """Continues counting from a checkpoint's position."""
        self.epoch, self.batch, self.step, self.rate = epoch, batch, step, rate

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """The optimizer over the model and the auxiliary modules, as the Parts want it grouped."""
        job = self.job
        groups = build_groups(job.run, job.parts, job.modules.values(), job.lr)
        return build_optimizer(groups, job.run.settings.optimizer, fused=self.plan.precision != "fp16")

    def transfer_batch_to_device(self, batch: Batch, device: torch.device, dataloader_idx: int) -> Batch:
        """The batch on the device, then as the Parts change it (outside autocast)."""
        if device.type != "cpu":
            batch = to_device(batch, device)
        for part in self.job.parts:
            batch = part.batch(self.job.run, batch)
        return batch

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Total loss of one batch."""
        output = self._forward(batch.x)
        terms = loss_terms(self.job, batch, output)
        loss = torch.stack(list(terms.values())).sum() if len(terms) > 1 else next(iter(terms.values()))
        self.means.add(terms, loss, len(batch.x), self.batch)
        self._check(loss)
        return loss

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Lays gradients out like their weights: a callback may have set one in another memory format."""
        if self.plan.channels_last:
            match_layout(optimizer)

    def optimizer_step(self, epoch: int, batch_idx: int, optimizer: Any, optimizer_closure: Any = None) -> None:
        """One optimizer step, the average's update, and the next step's rate."""
        self.rate = max(group["lr"] for group in optimizer.param_groups)
        optimizer.step(closure=optimizer_closure)
        self.step += 1
        if self.average is not None:
            self.average.update()
        self.apply_rate()

    def apply_rate(self) -> None:
        """Sets the rate that the next optimizer step uses."""
        job = self.job
        total = job.epochs * job.steps_per_epoch
        share = factor(job.run.settings.scheduler, min(self.step, total - 1), total, job.steps_per_epoch)
        set_rate(self.trainer.optimizers[0], share * self.plateau.factor)

    def on_train_epoch_start(self) -> None:
        """Puts a checkpoint from within an epoch back; running statistics follow what the callbacks (un)froze.

        Such a checkpoint comes after the Parts' callbacks: what they did at the epoch's start is in it already.
        """
        if not self.put_back():
            follow_freezing(self)
        trained = {name for name, parameter in self.named_parameters() if parameter.requires_grad}
        if trained != self._wrapped:
            ddp.wrap_again(self.trainer, self)
            self._wrapped = trained

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Counts the batch."""
        self.batch += 1
        if self.closing is not None:
            self.closing.batch(self.trainer)

    def on_train_epoch_end(self) -> None:
        """Closes the epoch, after all callbacks."""
        if self.closing is not None:
            self.closing.epoch(self.trainer)

    def put_back(self) -> bool:
        """Puts the checkpoint to go on from back, once; whether there was one."""
        if self.resume is None:
            return False
        checkpoint.apply(self.resume, self.trainer, self)
        self.resume = None
        return True

    def _forward(self, x: Tensor) -> Output:
        if self.plan.channels_last and x.ndim == 4:
            x = x.contiguous(memory_format=torch.channels_last)
        self.seen.clear()
        logits = self.model(x) if self._compiled is None else self._compiled(x)
        return Output(logits.float(), dict(self.seen))

    def _check(self, loss: Tensor) -> None:
        """Stops at a loss that is not finite: at once on the CPU, within :data:`CHECK_EVERY` batches on a GPU."""
        if loss.device.type == "cpu" and not math.isfinite(loss.item()):
            self._fail(self.batch)
        elif loss.device.type != "cpu" and self.batch % CHECK_EVERY == CHECK_EVERY - 1:
            self.check_epoch()

    def check_epoch(self) -> None:
        """Stops if any loss of this epoch so far was not finite.

        Raises:
            RunFailed: names the fit, the epoch and the step.
        """
        bad = self.means.first_bad()
        if bad is not None:
            self._fail(bad)

    def _fail(self, batch: int) -> None:
        raise RunFailed(
            f"{self.job.name}: the loss is not finite in epoch {self.epoch + 1} of {self.job.epochs}, "
            f"step {batch + 1} of {self.job.batches}; try a lower optimizer.lr, or trainer.gradient_clip"
        )
