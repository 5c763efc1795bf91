"""Running statistics of batch norm for the inputs that a model will meet."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from bigopt.train.evaluate import device_of
from bigopt.train.modes import evaluating
from bigopt.vocabulary.data import Split

ROWS = 4096
"""Samples that are enough."""


@torch.no_grad()
def refresh_statistics(model: nn.Module, split: Split, batch_size: int = 256) -> int:
    """Sets batch norm's running statistics to the plain averages over samples as they are.

    Training on strong views leaves statistics of strong views, which no sample has afterwards. Norms without a
    trainable parameter are left alone.

    Args:
        model: gives logits of raw inputs; dropout and the like stay in evaluation mode.
        split: inputs; its labels are not read. The first :data:`ROWS` samples are used.
        batch_size: rows of one average.

    Returns:
        number of norms.
    """
    norms: list[Any] = [
        module
        for module in model.modules()
        if getattr(module, "running_mean", None) is not None and any(p.requires_grad for p in module.parameters())
    ]
    if not norms:
        return 0
    momenta = [norm.momentum for norm in norms]
    rows = torch.arange(min(len(split), ROWS))
    chunks = [chunk for chunk in rows.split(batch_size) if len(chunk) > 1]
    with evaluating(model):
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # a plain average
            norm.training = True
        for chunk in chunks:
            model(split.take(chunk).to(device_of(model)))
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    return len(norms)
