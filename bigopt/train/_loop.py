"""What happens around the steps: validation, the best epoch, early stopping, progress, checkpoints."""

from __future__ import annotations

import time

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback
from torch import Tensor

from bigopt.train import checkpoint, ddp
from bigopt.train._module import FitModule
from bigopt.train.data import EpochLoader
from bigopt.train.evaluate import predict
from bigopt.train.keeper import Keeper
from bigopt.train.record import Record
from bigopt.train.signals import Signals
from bigopt.vocabulary.data import Split
from bigopt.vocabulary.errors import Paused, Pruned, RequestError
from bigopt.vocabulary.part import further_metrics

SHOW_EVERY = 0.1
"""Seconds between two updates of the progress bar."""


class Opening(Callback):
    """First of a fit's callbacks: validates before the Parts' own callbacks look at the epoch.

    From here to :meth:`Closing.epoch` the model holds the averaged weights where there are any, so that whatever a
    Part measures at the end of an epoch is measured on the weights that would be kept.
    """

    def __init__(self, signals: Signals) -> None:
        self.signals = signals

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Takes SIGTERM back from Lightning, whose handler would talk to other ranks from inside a signal."""
        if self.signals.installed:
            self.signals.install()

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Puts back a checkpoint from between two epochs, before the Parts' callbacks begin the new one."""
        assert isinstance(pl_module, FitModule)
        if pl_module.batch == 0:
            pl_module.put_back()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Validates, and publishes the epoch's values."""
        assert isinstance(pl_module, FitModule)
        pl_module.check_epoch()
        ddp.broadcast_state(pl_module)
        if pl_module.average is not None:
            pl_module.average.swap()
        values = pl_module.means.values()
        if pl_module.job.shown:
            values |= validate(pl_module)
        pl_module.values = ddp.broadcast_object(values)
        pl_module.log_dict(pl_module.values, on_epoch=True, on_step=False)


def validate(module: FitModule) -> dict[str, float]:
    """Metrics of the model in training on the validation split, by ``val/<metric>``, and those of the Parts."""
    run, plan = module.job.run, module.plan
    settings = run.settings.trainer

    def outputs(split: Split) -> Tensor:
        return predict(
            module.model,
            split,
            settings.eval_batch_size,
            dtype=plan.dtype,
            channels_last=plan.channels_last,
            workers=settings.workers,
        )

    values = {f"val/{name}": value for name, value in run.task.metrics(outputs(run.data.val), run.data.val.y).items()}
    return values | further_metrics(run, module.job.parts, module.model, outputs)


class Closing:
    """Closes every batch and every epoch, after all callbacks.

    Args:
        module: the fit.
        record: takes in the epochs.
        loader: is told which epoch comes next.
        keeper: decides when a checkpoint is due, and writes it.
    """

    def __init__(self, module: FitModule, record: Record, loader: EpochLoader, keeper: Keeper) -> None:
        self.module = module
        self.record = record
        self.loader = loader
        self.keeper = keeper
        self.started = self.epoch_started = time.perf_counter()
        self.pending = 0
        self.shown_at = 0.0

    def batch(self, trainer: pl.Trainer) -> None:
        """Takes in a finished batch; between two optimizer steps this is where a fit can stop and be resumed."""
        self.show(1)
        job = self.module.job
        stepped = self.module.batch % job.run.settings.trainer.accumulate == 0
        if stepped and self.module.batch < job.batches:  # after the last batch the epoch's end does it
            self._keep(trainer)

    def epoch(self, trainer: pl.Trainer) -> None:
        """Takes in a finished epoch; may stop the fit."""
        module, record, job = self.module, self.record, self.module.job
        # Lightning rounds what is logged to float32: its values are taken for what the Parts logged only
        logged = {name: float(value) for name, value in trainer.callback_metrics.items()}
        values = ddp.broadcast_object(logged | module.values)
        module.epoch += 1
        now = time.perf_counter()
        timing = {"lr": module.rate, "seconds": now - self.epoch_started}
        record.epochs.append({"epoch": float(module.epoch)} | values | timing)
        self.epoch_started = now
        value = self._monitored(values)
        if record.improves(job.run.monitor, value):
            record.keep(module.model, job.modules)
        if module.average is not None:
            module.average.swap()
        if job.run.settings.scheduler.name == "plateau":
            module.plateau.update(job.run.settings.scheduler, job.run.monitor, value)
            module.apply_rate()
        self._next(trainer, values)

    def _next(self, trainer: pl.Trainer, values: dict[str, float]) -> None:
        """Prepares the next epoch, or ends the fit."""
        module, record, job = self.module, self.record, self.module.job
        module.batch = 0
        module.means.clear()
        self.loader.go_to(module.epoch)
        patience = job.run.settings.trainer.early_stopping
        last = module.epoch >= job.epochs
        if patience is not None and record.stale >= patience and not last:
            record.notes.append(f"stopped after epoch {module.epoch}: no improvement in {patience} epochs")
            trainer.should_stop = last = True
        self.show(0)
        answer = self._report(values)
        if isinstance(answer, Paused):  # it goes on later, from here
            self.keeper.keep(checkpoint.capture(trainer, module, record, self.spent()))
        if answer is not None:
            raise answer
        if not last:
            self._keep(trainer)

    def _report(self, values: dict[str, float]) -> Pruned | None:
        """Tells of the epoch; a tuner's answer, which only rank 0 hears, stops every rank."""
        job = self.module.job
        pruned: Pruned | None = None
        if job.shown and job.run.depth == 0:
            try:
                job.run.progress.epoch(job.name, job.offset + self.module.epoch, values)
            except Pruned as answer:
                pruned = answer
        asked = ddp.agree(0 if pruned is None else 1 + isinstance(pruned, Paused))
        return pruned or (None, Pruned("pruned"), Paused("paused"))[asked]

    def _keep(self, trainer: pl.Trainer) -> None:
        if self.keeper.due():
            self.keeper.keep(checkpoint.capture(trainer, self.module, self.record, self.spent()))

    def _monitored(self, values: dict[str, float]) -> float:
        metric = self.module.job.run.monitor.metric
        if metric not in values:
            raise RequestError(f"objective: {metric!r} is not among an epoch's values: {', '.join(sorted(values))}")
        return values[metric]

    def show(self, steps: int) -> None:
        """Counts steps and moves the progress bar now and then; ``show(0)`` moves it at once."""
        if not self.module.job.shown:
            return
        self.pending += steps
        now = time.perf_counter()
        if self.pending and (steps == 0 or now - self.shown_at > SHOW_EVERY):
            self.module.job.run.progress.advance(self.pending, **self.module.means.loss())
            self.pending, self.shown_at = 0, now

    def spent(self) -> float:
        """Seconds of this fit, earlier processes included."""
        return self.record.seconds + time.perf_counter() - self.started
