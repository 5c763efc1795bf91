"""Predictions and metrics of a whole split."""

from __future__ import annotations

from contextlib import nullcontext

import torch
from torch import Tensor, nn

from bigopt.data.batches import batches
from bigopt.train.modes import evaluating
from bigopt.vocabulary.data import Split
from bigopt.vocabulary.errors import RequestError
from bigopt.vocabulary.run import Run


def device_of(model: nn.Module) -> torch.device:
    """Where a model's first parameter or buffer lies; the CPU for a model without any."""
    for tensor in (*model.parameters(), *model.buffers()):
        return tensor.device
    return torch.device("cpu")


@torch.no_grad()
def predict(
    model: nn.Module,
    split: Split,
    batch_size: int = 1024,
    device: torch.device | str | None = None,
    *,
    dtype: torch.dtype | None = None,
    channels_last: bool = False,
    workers: int = 0,
) -> Tensor:
    """Logits ``(N, K)`` or predictions ``(N, T)`` of every sample in the split's order, float32 on the CPU.

    The model is evaluated in evaluation mode, and is afterwards in the modes and on the device it was in before.

    Args:
        model: gives logits of raw inputs ``(N, …)``.
        split: what to predict; its labels are not read.
        batch_size: rows of one forward pass.
        device: where to compute; None means where the model is.
        dtype: of autocast; None computes in the model's own precision.
        channels_last: hand images over in that memory format.
        workers: processes that read a streaming split.

    Raises:
        RequestError: the split is empty.
    """
    if len(split) == 0:
        raise RequestError("the split to evaluate is empty")
    home = device_of(model)
    target = torch.device(device) if device is not None else home
    if target != home:
        model.to(target)
    logits = []
    try:
        with evaluating(model), torch.autocast(target.type, dtype) if dtype is not None else nullcontext():
            for batch in batches(split, batch_size, shuffle=False, workers=workers):
                x = batch.x.to(target, non_blocking=True)
                if channels_last and x.ndim == 4:
                    x = x.contiguous(memory_format=torch.channels_last)
                logits.append(model(x).detach().float().cpu())
    finally:
        if target != home:
            model.to(home)
    return torch.cat(logits)


def evaluate(run: Run, split: Split) -> dict[str, float]:
    """Metrics of ``run.model`` on a split, without a prefix."""
    trainer = run.settings.trainer
    logits = predict(run.model, split, trainer.eval_batch_size, workers=trainer.workers)
    return run.task.metrics(logits, split.y)
