"""A split that is read from disk as it is needed."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


class StreamSplit:
    """A split too large for memory: labels in memory, inputs read one by one when asked for.

    Args:
        load: gives one input by its position; must be picklable (worker processes call it). uint8 images are handed
            on as float in [0, 1].
        y: labels ``(N,)`` int64 or targets ``(N, T)`` float32.
        position: where ``load`` finds each sample, ``(N,)``; None means that sample i is at i.
    """

    in_memory = False

    def __init__(self, load: Callable[[int], Tensor], y: Tensor, position: Tensor | None = None) -> None:
        self.load = load
        self.y = y
        self.position = torch.arange(len(y)) if position is None else position

    def __len__(self) -> int:
        return len(self.y)

    def read(self, index: Tensor) -> Tensor:
        """Inputs at these positions as they are stored (uint8 images stay uint8)."""
        if len(index) == 0:
            return self.load(int(self.position[0])).unsqueeze(0)[:0]
        return torch.stack([self.load(place) for place in self.position[index].tolist()])

    def take(self, index: Tensor) -> Tensor:
        """Inputs at these positions, images as float in [0, 1]."""
        return as_float(self.read(index))

    def subset(self, index: Tensor) -> StreamSplit:
        """The samples at these positions, as a split of their own."""
        return StreamSplit(self.load, self.y[index], self.position[index])


def as_float(rows: Tensor) -> Tensor:
    """uint8 images as float in [0, 1]; anything else unchanged."""
    return rows.float().div_(255) if rows.dtype is torch.uint8 else rows
