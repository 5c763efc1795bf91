"""What happens around the steps: validation, the best epoch, early stopping, progress."""

from __future__ import annotations

import time
import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback

from bigopt.train import ddp
from bigopt.train._module import FitModule
from bigopt.train.data import EpochLoader
from bigopt.train.evaluate import predict
from bigopt.train.record import Record
from bigopt.vocabulary.errors import RequestError

SHOW_EVERY = 0.1
"""Seconds between two updates of the progress bar."""


class Opening(Callback):
    """First of a fit's callbacks: validates before the Parts' own callbacks look at the epoch.

    From here to :class:`Closing` the model holds the averaged weights where there are any, so that whatever a Part
    measures at the end of an epoch is measured on the weights that would be kept.
    """

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Validates, and publishes the epoch's values."""
        assert isinstance(pl_module, FitModule)
        if not pl_module.means.finite():
            pl_module.fail({})
        ddp.broadcast_state(pl_module)
        if pl_module.average is not None:
            pl_module.average.swap()
        values = pl_module.means.values()
        if pl_module.job.shown:
            values |= validate(pl_module)
        pl_module.values = ddp.broadcast_object(values)
        pl_module.log_dict(pl_module.values, on_epoch=True, on_step=False)


def validate(module: FitModule) -> dict[str, float]:
    """Metrics of the model in training on the validation split, by ``val/<metric>``."""
    run, plan = module.job.run, module.plan
    settings = run.settings.trainer
    logits = predict(
        module.model,
        run.data.val,
        settings.eval_batch_size,
        dtype=plan.dtype,
        channels_last=plan.channels_last,
        workers=settings.workers,
    )
    return {f"val/{name}": value for name, value in run.task.metrics(logits, run.data.val.y).items()}


class Closing:
    """Closes every epoch, after all callbacks: history, best weights, early stopping, plateau, progress."""

    def __init__(self, module: FitModule, record: Record, loader: EpochLoader) -> None:
        self.module = module
        self.record = record
        self.loader = loader
        self.started = time.perf_counter()
        self.epoch_started = self.started
        self.pending = 0
        self.shown_at = 0.0

    def batch(self, trainer: pl.Trainer) -> None:
        """Takes in a finished batch."""
        self.show(1)

    def epoch(self, trainer: pl.Trainer) -> None:
        """Takes in a finished epoch; may stop the fit."""
        module, record, job = self.module, self.record, self.module.job
        # Lightning rounds what is logged to float32: its values are taken for what the Parts logged only
        logged = {name: float(value) for name, value in trainer.callback_metrics.items()}
        values = ddp.broadcast_object(logged | module.values)
        now = time.perf_counter()
        module.epoch += 1
        row = {"epoch": float(module.epoch)} | values
        row |= {"lr": max(group["lr"] for group in trainer.optimizers[0].param_groups)}
        row |= {"seconds": now - self.epoch_started}
        record.epochs.append(row)
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
        module.means = type(module.means)()
        self.loader.go_to(module.epoch)
        patience = job.run.settings.trainer.early_stopping
        if patience is not None and record.stale >= patience and module.epoch < job.epochs:
            record.notes.append(f"stopped after epoch {module.epoch}: no improvement in {patience} epochs")
            trainer.should_stop = True
        if job.shown:
            self.show(0)
            if job.run.depth == 0:
                job.run.progress.epoch(job.name, job.offset + module.epoch, values)

    def _monitored(self, values: dict[str, float]) -> float:
        metric = self.module.job.run.monitor.metric
        if metric not in values:
            known = ", ".join(sorted(values))
            raise RequestError(f"objective: {metric!r} is not among the values of an epoch: {known}")
        return values[metric]

    def show(self, steps: int) -> None:
        """Counts steps and moves the progress bar now and then; ``show(0)`` moves it at once."""
        if not self.module.job.shown:
            return
        self.pending += steps
        now = time.perf_counter()
        if self.pending and (steps == 0 or now - self.shown_at > SHOW_EVERY):
            self.module.job.run.progress.advance(self.pending)
            self.pending, self.shown_at = 0, now

    def spent(self) -> float:
        """Seconds of this fit, earlier processes included."""
        return self.record.seconds + time.perf_counter() - self.started
