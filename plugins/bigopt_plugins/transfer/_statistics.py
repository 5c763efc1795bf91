"""Running statistics of batch norm for the inputs that a model will meet."""

from __future__ import annotations

import torch
from torch import nn

from bigopt.train.statistics import average_statistics
from bigopt.vocabulary.data import Split

ROWS = 4096
"""Samples that are enough."""


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
    norms = [
        module
        for module in model.modules()
        if getattr(module, "running_mean", None) is not None and any(p.requires_grad for p in module.parameters())
    ]
    if not norms:
        return 0
    rows = torch.arange(min(len(split), ROWS))
    average_statistics(model, norms, (split.take(chunk) for chunk in rows.split(batch_size) if len(chunk) > 1))
    return len(norms)
