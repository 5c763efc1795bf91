"""One fit from its first step, or its newest checkpoint, to its best weights."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytorch_lightning as pl
import torch
from torch import nn

from bigopt.store import Generations
from bigopt.train import checkpoint, ddp
from bigopt.train._loop import Closing, Opening
from bigopt.train._module import FitModule
from bigopt.train._trainer import build_trainer, quiet, torch_settings
from bigopt.train.allocator import keep_freed_memory
from bigopt.train.data import EpochLoader
from bigopt.train.evaluate import device_of
from bigopt.train.job import Job, companions
from bigopt.train.keeper import Keeper
from bigopt.train.modes import start_training
from bigopt.train.plan import Plan, resolve_plan
from bigopt.train.record import Record
from bigopt.train.seeds import seed_all
from bigopt.train.signals import Signals
from bigopt.vocabulary.errors import Interrupted, RequestError, RunFailed
from bigopt.vocabulary.run import recording


def train(job: Job, signals: Signals, generations: Generations, key: str) -> Record:
    """Trains, and leaves the model and the auxiliary modules at the best epoch.

    Raises:
        RequestError: nothing to train, or nothing to train on.
        RunFailed: a loss that is not finite, or a Part that changed the net's structure.
        Interrupted: a signal asked to stop; the checkpoint to go on from is written.
        Pruned: a tuner stopped the trial.
    """
    if job.batches == 0:
        raise RequestError(f"{job.name}: the training split is empty")
    keep_freed_memory()
    state = _resumed(generations, key)
    with ExitStack() as stack:
        stack.enter_context(quiet())
        stack.enter_context(torch_settings(job))
        plan, notes = (Plan(**state["plan"]), []) if state else resolve_plan(job)
        record = checkpoint.record_of(state) if state else Record(notes=notes)
        seed_all(job.seed, ddp.rank())  # what the decisions drew is forgotten, and ranks draw differently
        if plan.channels_last:
            stack.enter_context(channels_last(job))
        if plan.accelerator != "cpu":
            stack.enter_context(on_device(companions(job), torch.device(plan.accelerator, ddp.rank())))
        module = FitModule(job, plan, stack.enter_context(recording(job.run.model, job.taps)))
        loader = EpochLoader(job)
        keeper = Keeper(generations, key, job.run.settings.trainer.checkpoint_seconds, signals)
        module.closing = Closing(module, record, loader, keeper)
        _fit(module, loader, state, signals, stack)
        module.closing.show(0)
        record.seconds = module.closing.spent()
    try:
        record.restore(job.run.model, job.modules)
    except RuntimeError as error:
        raise RunFailed(f"{job.name}: a Part changed the net's structure during the fit: {error}") from None
    for each in (job.run.model, *job.modules.values()):
        each.zero_grad(set_to_none=True)
    record.notes += keeper.failures
    return record


def _resumed(generations: Generations, key: str) -> checkpoint.State | None:
    """The checkpoint to go on from, the same one on every rank."""
    newest = generations.newest() if ddp.rank() == 0 else None
    newest = ddp.broadcast_object(newest)
    return checkpoint.load(newest, key) if newest is not None else None


def _fit(
    module: FitModule, loader: EpochLoader, state: checkpoint.State | None, signals: Signals, stack: ExitStack
) -> None:
    """Runs Lightning's loops, from the checkpoint's position on if there is one."""
    job = module.job
    callbacks = [Opening(signals), *(callback for part in job.parts for callback in part.callbacks(job.run))]
    trainer = build_trainer(job, module.plan, callbacks)
    start_training(module)
    if job.shown:
        job.run.progress.start(job.name, job.epochs * job.batches)
        stack.callback(job.run.progress.stop)
    if state is not None:
        position: dict[str, Any] = state["position"]
        module.resume = state
        module.go_to(**position)
        loader.go_to(module.epoch, module.batch)
        _set_counters(trainer, module)
        if module.closing is not None:
            module.closing.show(module.epoch * job.batches + module.batch)
    with stoppable(signals):
        trainer.fit(module, train_dataloaders=loader)


def _set_counters(trainer: pl.Trainer, module: FitModule) -> None:
    """Makes Lightning's own loops count from the checkpoint's position."""
    loop = trainer.fit_loop
    done = module.epoch * module.job.batches + module.batch
    batches: Any = loop.epoch_loop.batch_progress
    epochs: Any = loop.epoch_progress
    counts = ((epochs.total, module.epoch), (epochs.current, module.epoch), (batches.total, done))
    for tracker, count in (*counts, (batches.current, module.batch)):
        tracker.ready = tracker.started = tracker.processed = tracker.completed = count
    steps = loop.epoch_loop.automatic_optimization.optim_progress.optimizer.step.total
    steps.ready = steps.completed = module.step
    loop.epoch_loop.restarting = True  # keeps the counts above instead of starting the epoch at 0


@contextmanager
def stoppable(signals: Signals) -> Iterator[None]:
    """Undoes what Lightning makes of Ctrl-C: it would end the process, deaf to further ones.

    Raises:
        Interrupted: a second Ctrl-C, with bigopt's handlers.
        KeyboardInterrupt: Ctrl-C without them.
    """
    main = threading.current_thread() is threading.main_thread()
    handler = signal.getsignal(signal.SIGINT) if main else None
    try:
        yield
    except SystemExit as end:
        if not isinstance(end.__context__, KeyboardInterrupt):
            raise
        if signals.forced:
            raise Interrupted(signal.SIGINT) from None
        raise KeyboardInterrupt from None
    finally:
        if main:
            signal.signal(signal.SIGINT, handler)


@contextmanager
def on_device(modules: list[nn.Module], device: torch.device) -> Iterator[None]:
    """Holds modules on a device while the block runs; afterwards they are where they were."""
    homes = [device_of(module) for module in modules]
    for module in modules:
        module.to(device)
    try:
        yield
    finally:
        for module, home in zip(modules, homes, strict=True):
            module.to(home)


@contextmanager
def channels_last(job: Job) -> Iterator[None]:
    """Holds images' weights in that memory format while the block runs."""
    modules = (job.run.model, *job.modules.values())
    for module in modules:
        module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    try:
        yield
    finally:
        for module in modules:
            module.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
