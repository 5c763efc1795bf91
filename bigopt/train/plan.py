"""How a fit is computed: device, precision, memory format, compilation. Decided once and kept in the checkpoint."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from bigopt.train import compile as compilation
from bigopt.train import ddp
from bigopt.train.precision import Accelerator, Precision, resolve_accelerator, resolve_precision

if TYPE_CHECKING:
    from bigopt.train.job import Job


@dataclass(frozen=True)
class Plan:
    """The decisions.

    Attributes:
        accelerator: ``cpu`` or ``cuda``.
        precision: fp32, or autocast to bf16 or fp16.
        channels_last: memory format of images and convolutions.
        compile: whether the model is compiled.
    """

    accelerator: Accelerator = "cpu"
    precision: Precision = "fp32"
    channels_last: bool = False
    compile: bool = False

    @property
    def dtype(self) -> torch.dtype | None:
        """Autocast's type, None without autocast."""
        return {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}[self.precision]

    @property
    def lightning_precision(self) -> Any:
        """The name that Lightning has for the precision."""
        return {"fp32": "32-true", "bf16": "bf16-mixed", "fp16": "16-mixed"}[self.precision]

    def state(self) -> dict[str, Any]:
        """Plain state for a checkpoint."""
        return asdict(self)


def resolve_plan(job: Job, compiling: bool = True) -> tuple[Plan, list[str]]:
    """Takes every decision that the configuration leaves open; rank 0 decides for all.

    Args:
        job: the fit.
        compiling: whether compiling the model is considered.

    Returns:
        The plan, and notes for the history.
    """
    if ddp.rank() != 0:
        return ddp.broadcast_object((Plan(), []))
    settings = job.run.settings.trainer
    notes: list[str | None] = []
    plan = Plan(accelerator=resolve_accelerator(settings.accelerator))
    plan = replace(plan, channels_last=wants_channels_last(job.run.model, settings.channels_last))
    precision, note = resolve_precision(job, plan)
    notes.append(note)
    plan = replace(plan, precision=precision)
    compiled, note = compilation.decide(job, plan) if compiling else (False, None)
    notes.append(note)
    return ddp.broadcast_object((replace(plan, compile=compiled), [text for text in notes if text]))


NARROW = 8
"""Channels below which torch 2.13 on a CPU without AVX512 writes beyond its buffers in this memory format: residual
nets of width 3 to 6 ended in "corrupted size" or a segmentation fault within 30 steps."""


def wants_channels_last(model: nn.Module, setting: str) -> bool:
    """Whether images and convolutions are laid out with the channels last while training.

    ``auto`` goes by a rule, not by a clock, so that a run repeats: yes for every net with Conv2d layers of at least
    ``NARROW`` channels. On a CPU in fp32 a step of a LeNet-5, a depthwise and a small residual net took 0.63, 0.83 and
    0.78 of the time.
    """
    if setting != "auto":
        return setting == "on"
    widths = [module.out_channels for module in model.modules() if isinstance(module, nn.Conv2d)]
    return bool(widths) and min(widths) >= NARROW
