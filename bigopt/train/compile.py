"""Whether a model is compiled, and the fall-back to eager where that fails."""

from __future__ import annotations

import importlib.util
import shutil
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from bigopt.data.batches import batches
from bigopt.train import rng
from bigopt.train.trial import Trial
from bigopt.vocabulary.network import Network

if TYPE_CHECKING:
    from bigopt.train.job import Job
    from bigopt.train.plan import Plan

PAYS_FROM = 300.0
"""Seconds of eager training from which compiling (up to half a minute, 1.5 to 2 times faster afterwards) pays."""

TIMED = 3
"""Steps that are timed to estimate a fit's length; the fastest counts."""


def compiler_missing(accelerator: str) -> str | None:
    """Why nothing can be compiled here; None where it can."""
    if accelerator == "cuda":
        return None if importlib.util.find_spec("triton") else "triton is not installed"
    found = any(shutil.which(name) for name in ("c++", "g++", "clang++"))
    return None if found else "no C++ compiler was found"


def estimate(job: Job, plan: Plan) -> float:
    """Seconds that the fit's steps would take without compilation; the model is not touched."""
    trial = Trial(job, plan)
    times = []
    for _ in range(TIMED):
        started = time.perf_counter()
        trial.step()
        times.append(time.perf_counter() - started)
    return min(times) * job.epochs * job.batches


def decide(job: Job, plan: Plan) -> tuple[bool, str | None]:
    """Whether to compile, with a note where there is something to say."""
    setting = job.run.settings.trainer.compile
    if setting == "off":
        return False, None
    problem = compiler_missing(plan.accelerator)
    if job.taps:
        problem = "Parts read intermediate outputs, which a compiled model does not give"
    if problem is not None:
        return False, f"not compiled: {problem}" if setting == "on" else None
    if setting == "on":
        return True, None
    seconds = estimate(job, plan)
    if seconds < PAYS_FROM:
        return False, None
    return True, f"compiled: {seconds:.0f} s of training estimated without"


def compiled(model: nn.Module, job: Job, plan: Plan) -> Callable[[Tensor], Tensor] | None:
    """The model compiled for full batches, tried out on one; None, with a note in the job, if that fails.

    Batches of another size run eager: a second compilation would cost more than it saves.
    """
    torch._dynamo.reset()  # every fit has its own model; the limit on compilations is meant for one
    call: Callable[[Tensor], Tensor]
    call = model.compiled() if isinstance(model, Network) else torch.compile(model, dynamic=False)
    try:
        _try(call, model, job, plan)
    except Exception as error:  # whatever a compiler may raise, training must go on
        reason = (str(error).splitlines() or [""])[0]
        job.notes.append(f"not compiled: {type(error).__name__}: {reason}")
        return None
    rows = job.batch_size
    return lambda x: call(x) if len(x) == rows else model(x)


def _try(call: Callable[[Tensor], Tensor], model: nn.Module, job: Job, plan: Plan) -> None:
    """Compiles forward and backward on the first batch; weights, buffers and random states stay as they were."""
    device = next(model.parameters()).device
    x = next(batches(job.run.data.train, job.batch_size, shuffle=False)).x.to(device)
    if plan.channels_last and x.ndim == 4:
        x = x.contiguous(memory_format=torch.channels_last)
    buffers = {name: buffer.detach().clone() for name, buffer in model.named_buffers()}
    random = rng.capture()
    try:
        with torch.autocast(device.type, plan.dtype, enabled=plan.dtype is not None):
            loss = call(x).float().square().mean()
        loss.backward()
    finally:
        rng.restore(random)
        model.zero_grad(set_to_none=True)
        with torch.no_grad():
            for name, buffer in model.named_buffers():
                buffer.copy_(buffers[name])
