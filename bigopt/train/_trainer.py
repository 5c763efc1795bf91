"""Lightning's Trainer, quiet, and with everything off that bigopt does itself."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytorch_lightning as pl
import torch
from lightning_fabric.utilities.warnings import PossibleUserWarning
from pytorch_lightning.callbacks import Callback

from bigopt.train import ddp
from bigopt.train.job import Job
from bigopt.train.plan import Plan

LOUD = ("pytorch_lightning", "lightning_fabric", "lightning", "lightning.pytorch")


@contextmanager
def quiet() -> Iterator[None]:
    """Keeps Lightning's tips, device lines and advice about workers out of the output while the block runs."""
    loggers = [logging.getLogger(name) for name in LOUD]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            for module in (r"pytorch_lightning\..*", r"lightning_fabric\..*"):
                warnings.filterwarnings("ignore", module=module)
            warnings.filterwarnings("ignore", category=PossibleUserWarning)
            warnings.filterwarnings("ignore", message=".*find_unused_parameters.*")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


@contextmanager
def torch_settings(job: Job) -> Iterator[None]:
    """Threads and deterministic algorithms as configured while the block runs, and as they were afterwards."""
    settings = job.run.settings.trainer
    threads, deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    with ExitStack() as stack:
        if settings.threads is not None:
            torch.set_num_threads(settings.threads)
            stack.callback(torch.set_num_threads, threads)
        if settings.deterministic:
            torch.use_deterministic_algorithms(True)
            stack.callback(torch.use_deterministic_algorithms, deterministic, warn_only=warn_only)
        yield


def build_trainer(job: Job, plan: Plan, callbacks: list[Callback]) -> pl.Trainer:
    """A Trainer for one fit."""
    settings = job.run.settings.trainer
    arguments: dict[str, Any] = {"devices": 1}
    if ddp.world_size() > 1:
        arguments = {"devices": ddp.world_size(), "strategy": ddp.strategy()}
    return pl.Trainer(
        accelerator=plan.accelerator,
        precision=plan.lightning_precision,
        max_epochs=job.epochs,
        callbacks=callbacks,
        gradient_clip_val=settings.gradient_clip,
        accumulate_grad_batches=settings.accumulate,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        limit_val_batches=0,
        use_distributed_sampler=False,
        **arguments,
    )
