"""Which precision a fit is computed in: bfloat16 only where the hardware has it and it costs no accuracy."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

import torch

from bigopt.train.modes import evaluating
from bigopt.train.seeds import seed_all
from bigopt.vocabulary.errors import RequestError

if TYPE_CHECKING:
    from bigopt.train.job import Job
    from bigopt.train.plan import Plan

Accelerator = Literal["cpu", "cuda"]
Precision = Literal["fp32", "bf16", "fp16"]

LOGITS_WITHIN = 0.05
"""Largest allowed relative error of the logits of one batch, ``|bf16 - fp32| / |fp32|`` over all of them."""

LOSS_WITHIN = 0.05
"""Largest allowed excess of the mean loss of the trial's second half, as a share of fp32's."""

STEPS = 10
"""Steps of the trial."""


def resolve_accelerator(wanted: str) -> Accelerator:
    """Where to compute.

    Raises:
        RequestError: a GPU is asked for, and there is none.
    """
    if wanted == "cpu":
        return "cpu"
    if torch.cuda.is_available():
        return "cuda"
    if wanted == "gpu":
        raise RequestError("trainer.accelerator: got gpu, but no CUDA device was found; use auto or cpu")
    return "cpu"


def has_bf16(accelerator: Accelerator) -> bool:
    """Whether the hardware multiplies in bfloat16: a GPU from Ampere on, a CPU with AVX512-BF16 or AMX."""
    if accelerator == "cuda":
        return torch.cuda.get_device_capability()[0] >= 8
    capabilities = torch.backends.cpu.get_cpu_capability()
    flags = _cpu_flags()
    return capabilities.startswith("AVX512") and bool({"avx512_bf16", "amx_bf16"} & flags) or "bf16" in flags


def _cpu_flags() -> set[str]:
    """What the kernel says the CPU has; nothing where it says nothing."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            for line in file:
                if line.startswith(("flags", "Features")):
                    return set(line.partition(":")[2].split())
    except OSError:
        pass
    return set()


def resolve_precision(job: Job, plan: Plan) -> tuple[Precision, str | None]:
    """The precision that a fit uses, with a note for the history.

    ``auto`` takes bf16 where :func:`has_bf16` and :func:`loses_accuracy` agree to it, fp32 otherwise.

    Args:
        job: the fit.
        plan: the decisions taken before this one.

    Raises:
        RequestError: fp16 without a GPU.
    """
    wanted = job.run.settings.trainer.precision
    if wanted == "fp16" and plan.accelerator == "cpu":
        raise RequestError("trainer.precision: fp16 needs a GPU; on this CPU use auto, bf16 or fp32")
    if wanted == "bf16" and not has_bf16(plan.accelerator):
        return "bf16", "precision bf16, which this hardware emulates slowly"
    if wanted != "auto":
        return wanted, None
    if not has_bf16(plan.accelerator):
        return "fp32", "precision fp32: no bf16 hardware"
    loss = loses_accuracy(job, plan)
    return (
        ("bf16", "precision bf16: no accuracy lost in a trial") if loss is None else ("fp32", f"precision fp32: {loss}")
    )


def loses_accuracy(job: Job, plan: Plan) -> str | None:
    """Trains copies of the model for :data:`STEPS` steps in fp32 and in bf16, from the same seed on the same batches.

    Returns:
        What went wrong with bf16: logits further off than :data:`LOGITS_WITHIN`, a loss that is not finite or, over
        the second half of the steps, higher by more than :data:`LOSS_WITHIN`; None when nothing did.
    """
    from dataclasses import replace

    from bigopt.train.trial import Trial

    losses, logits = {}, {}
    for name in ("fp32", "bf16"):
        seed_all(job.seed, 0, "precision")
        trial = Trial(job, replace(plan, precision=name))
        x = job.run.data.train.take(torch.arange(min(job.batch_size, len(job.run.data.train)))).to(trial.device)
        with torch.no_grad(), evaluating(trial.model), trial.autocast():
            logits[name] = trial.model(x).float()
        history = [float(trial.step()) for _ in range(STEPS)]
        losses[name] = sum(history[STEPS // 2 :]) / (STEPS - STEPS // 2)
    error = float((logits["bf16"] - logits["fp32"]).norm() / logits["fp32"].norm().clamp_min(1e-12))
    if not error <= LOGITS_WITHIN:
        return f"bf16 changes the logits by {error:.1%}"
    if not math.isfinite(losses["bf16"]) or losses["bf16"] > losses["fp32"] * (1 + LOSS_WITHIN) + 1e-6:
        return f"bf16 raises the loss of {STEPS} steps from {losses['fp32']:.4g} to {losses['bf16']:.4g}"
    return None
