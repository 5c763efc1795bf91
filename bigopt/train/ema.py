"""Exponential moving average of a model's weights."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Average:
    """Average of parameters and floating-point buffers: ``a ← decay · a + (1 - decay) · w`` after every step.

    Batch norm's running statistics are averaged like the weights they belong to; whole-number buffers are copied.
    A value that never changes stays bit-identical.

    Args:
        model: whose state is averaged; the average starts at its present values.
        decay: in [0, 1).
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        tensors = dict(model.named_parameters()) | dict(model.named_buffers())
        self._live = {name: t for name, t in tensors.items() if t.is_floating_point()}
        self.values = {name: t.detach().clone() for name, t in self._live.items()}

    @torch.no_grad()
    def update(self) -> None:
        """Takes in the model's present values."""
        torch._foreach_lerp_(list(self.values.values()), [t.detach() for t in self._live.values()], 1 - self.decay)

    @torch.no_grad()
    def swap(self) -> None:
        """Exchanges the average and the model's values; a second call undoes it."""
        for name, live in self._live.items():
            held = live.detach().clone()
            live.detach().copy_(self.values[name])
            self.values[name].copy_(held)

    def load(self, values: dict[str, Tensor]) -> None:
        """Continues from saved values."""
        for name, value in values.items():
            self.values[name].copy_(value)
