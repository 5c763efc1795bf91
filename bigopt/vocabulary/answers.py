"""What a model that is not trained says of every training sample, computed once."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from bigopt.vocabulary.batch import Batch
from bigopt.vocabulary.data import Split

LIMIT = 1 << 30
"""Bytes that the answers may take; more is computed for every batch."""

Compute = Callable[[Tensor], dict[str, Tensor]]


@torch.no_grad()
def answer(model: nn.Module, x: Tensor) -> Tensor:
    """What a model that is not trained says of raw inputs ``(N, …)``: float32, without gradients."""
    if x.ndim == 4:
        x = x.contiguous(memory_format=torch.channels_last)  # faster for convolutions, also on the CPU
    said: Tensor = model(x).float()
    return said


class Answers:
    """Keeps what is said of the fixed samples of one split, by name: ``(copies · N, …)``.

    A sample is asked about when it comes for the first time; rows that a Part has changed are asked about every time.

    Attributes:
        hits: batches that needed no computing.
    """

    def __init__(self) -> None:
        self.hits = 0
        self._split: Split | None = None
        self._how: tuple[object, ...] = ()
        self._known = torch.zeros(0, dtype=torch.bool)
        self._rows: dict[str, Tensor] | None = {}

    def get(self, batch: Batch, compute: Compute) -> dict[str, Tensor]:
        """What ``compute`` says of the batch's rows: of each name ``(N, …)``, one row a sample, from that row alone."""
        source, x = batch.fixed(), batch.x
        if source is None or len(x) == 0:
            return compute(x)
        autocast = torch.get_autocast_dtype(x.device.type) if torch.is_autocast_enabled(x.device.type) else None
        how = (x.device, autocast, source.copies)
        if self._split is not source.split or self._how != how:
            self._split, self._how, self._rows = source.split, how, {}
            self._known = torch.zeros(source.copies * len(source.split), dtype=torch.bool, device=x.device)
        if self._rows is None:
            return compute(x)
        place = batch.index if source.copy is None else batch.index + source.copy * len(source.split)
        missing = ~self._known[place]
        if not missing.any():
            self.hits += 1
        elif not self._take_in(place, missing, compute(x if missing.all() else x[missing])):
            return compute(x)
        return {name: rows.index_select(0, place) for name, rows in self._rows.items()}

    def _take_in(self, place: Tensor, missing: Tensor, said: dict[str, Tensor]) -> bool:
        """Keeps new answers; whether there is room for them."""
        assert self._rows is not None
        if not self._rows:
            samples = len(self._known)
            if samples * sum(value[0].numel() * value.element_size() for value in said.values()) > LIMIT:
                self._rows = None
                return False
            self._rows = {name: value.new_empty((samples, *value.shape[1:])) for name, value in said.items()}
        for name, rows in self._rows.items():
            rows[place[missing]] = said[name].detach()
        self._known[place[missing]] = True
        return True
