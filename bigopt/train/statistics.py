"""Running statistics of batch norm, computed anew for the inputs that a model will meet."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from bigopt.train.evaluate import device_of
from bigopt.train.modes import evaluating


@torch.no_grad()
def average_statistics(model: nn.Module, norms: Sequence[nn.Module], inputs: Iterable[Tensor]) -> None:
    """Gives norms the plain averages of their batches' statistics; all else is in evaluation mode meanwhile.

    Args:
        model: run over the inputs.
        norms: layers of the model with running statistics.
        inputs: raw batches ``(N, …)`` of at least two rows.
    """
    chosen: Sequence[Any] = norms
    momenta = [norm.momentum for norm in chosen]
    device = device_of(model)
    with evaluating(model):
        for norm in chosen:
            norm.reset_running_stats()
            norm.momentum = None  # a plain average over the batches
            norm.training = True
        for x in inputs:
            model(x.to(device))
    for norm, momentum in zip(chosen, momenta, strict=True):
        norm.momentum = momentum
