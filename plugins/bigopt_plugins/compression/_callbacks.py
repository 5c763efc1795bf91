"""Lightning callbacks of the compression methods; imported only when a fit starts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from pytorch_lightning.callbacks import Callback
from torch import Tensor, nn


class HoldZeros(Callback):
    """Keeps entries of parameters at zero.

    Their gradients go before the optimizer sees them, so that its state, the gradients' norm and averaged weights
    stay clean; after each step they are set to zero again, whatever else may have moved them.

    Args:
        pairs: parameters, each with a bool tensor of its shape that is True where it stays zero.
    """

    def __init__(self, pairs: Sequence[tuple[nn.Parameter, Tensor]]) -> None:
        self.pairs = list(pairs)

    def on_train_start(self, *_: Any) -> None:
        """Follows the parameters to their device."""
        self.pairs = [(parameter, zero.to(parameter.device)) for parameter, zero in self.pairs]

    def on_before_optimizer_step(self, *_: Any) -> None:
        """Takes the gradients away."""
        for parameter, zero in self.pairs:
            if parameter.grad is not None:
                parameter.grad.masked_fill_(zero, 0)

    @torch.no_grad()
    def on_train_batch_end(self, *_: Any) -> None:
        """Sets the entries to zero."""
        for parameter, zero in self.pairs:
            parameter.masked_fill_(zero, 0)


class ShareValues(Callback):
    """Keeps entries of a parameter that share a value equal: each gets the sum of all their gradients.

    ``∂L/∂c_k = Σ_i ∂L/∂w_i · 1(code_i = k)`` (Han et al. 2016, eq. 3). Equal entries with equal gradients have equal
    optimizer states, so that training the entries is training the centroids.

    Args:
        pairs: parameters, each with an int64 tensor of its shape that says which entries share a value; entries
            with code 0 are zero and stay so.
    """

    def __init__(self, pairs: Sequence[tuple[nn.Parameter, Tensor]]) -> None:
        self.pairs: list[tuple[nn.Parameter, Tensor, Tensor, Tensor]] = [
            (p, codes, *_first(codes)) for p, codes in pairs
        ]

    def on_train_start(self, *_: Any) -> None:
        """Follows the parameters to their device."""
        self.pairs = [(p, a.to(p.device), b.to(p.device), c.to(p.device)) for p, a, b, c in self.pairs]

    def on_before_optimizer_step(self, *__: Any) -> None:
        """Sums the gradients."""
        for parameter, codes, *_ in self.pairs:
            if parameter.grad is not None:
                sums = _sums(parameter.grad, codes)
                sums[0] = 0
                parameter.grad.copy_(sums[codes])

    @torch.no_grad()
    def on_train_batch_end(self, *_: Any) -> None:
        """Takes back what rounding made of equal entries (fused kernels round a vector's tail differently)."""
        for parameter, codes, present, first in self.pairs:
            values = parameter.new_zeros(int(codes.max()) + 1)
            values[present] = parameter.reshape(-1)[first]
            values[0] = 0
            parameter.copy_(values[codes])


def _first(codes: Tensor) -> tuple[Tensor, Tensor]:
    """The codes that occur, and where each occurs first."""
    import numpy as np

    present, first = np.unique(codes.cpu().numpy().reshape(-1), return_index=True)
    return torch.from_numpy(present), torch.from_numpy(first)


def _sums(values: Tensor, codes: Tensor) -> Tensor:
    sums = torch.zeros(int(codes.max()) + 1, dtype=torch.float64, device=values.device)
    return sums.index_add_(0, codes.reshape(-1), values.reshape(-1).double()).to(values.dtype)
