"""One fit from its first step to its best weights."""

from __future__ import annotations

from contextlib import ExitStack

from torch import nn

from bigopt.train._loop import Closing, Opening
from bigopt.train._module import FitModule
from bigopt.train._trainer import build_trainer, quiet, torch_settings
from bigopt.train.data import EpochLoader
from bigopt.train.job import Job
from bigopt.train.modes import start_training
from bigopt.train.plan import Plan
from bigopt.train.record import Record
from bigopt.train.signals import Signals
from bigopt.vocabulary.run import recording


def train(job: Job, signals: Signals) -> Record:
    """Trains, and leaves the model and the auxiliary modules at the best epoch."""
    run = job.run
    record, loader, plan = Record(), EpochLoader(job), Plan()
    with ExitStack() as stack:
        stack.enter_context(quiet())
        stack.enter_context(torch_settings(job))
        seen = stack.enter_context(recording(run.model, job.taps))
        module = FitModule(job, plan, seen)
        module.closing = Closing(module, record, loader)
        callbacks = [Opening(), *(callback for part in job.parts for callback in part.callbacks(run))]
        trainer = build_trainer(job, plan, callbacks)
        start_training(module)
        if job.shown:
            run.progress.start(job.name, job.epochs * job.batches)
            stack.callback(run.progress.stop)
        trainer.fit(module, train_dataloaders=loader)
        module.closing.show(0)
    record.restore(run.model, job.modules)
    zero_grad(run.model, *job.modules.values())
    return record


def zero_grad(*modules: nn.Module) -> None:
    """Frees the gradients."""
    for module in modules:
        module.zero_grad(set_to_none=True)
