"""What teachers say of every training sample, computed once where nothing changes the samples."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from bigopt.data.batches import batches
from bigopt.vocabulary.batch import Batch
from bigopt.vocabulary.data import Split
from bigopt.vocabulary.part import Part
from bigopt.vocabulary.run import Run

LIMIT = 1 << 30
"""Bytes that the cache may take; more is computed for every batch."""

Compute = Callable[[Tensor], dict[str, Tensor]]


class Cache:
    """Keeps what is said of every sample of a split, by name: ``(N, …)`` float32."""

    def __init__(self) -> None:
        self._split: Split | None = None
        self._how: tuple[object, ...] = ()
        self._rows: dict[str, Tensor] | None = None
        self._raw: tuple[Tensor, int] | None = None
        self.hits = 0

    def see(self, batch: Batch) -> None:
        """Remembers a batch as the Part was given it, to tell later whether another one has changed it."""
        self._raw = (batch.x, batch.x._version)

    def unchanged(self, run: Run, part: Part, batch: Batch) -> bool:
        """Whether the batch holds the split's own samples, untouched by any Part.

        Args:
            run: gives the Parts; those before ``part`` must leave batches alone.
            part: calls :meth:`see` in its ``batch``.
            batch: as the loss is given it.
        """
        if self._raw is None or batch.x is not self._raw[0] or batch.x._version != self._raw[1]:
            return False
        if not any(other is part for other in run.parts):  # its place is not known: look at the samples
            index = batch.index.cpu()
            return bool((index >= 0).all()) and torch.equal(batch.x.cpu(), run.data.train.take(index))
        for other in run.parts:
            if other is part:
                return True
            if type(other).batch is not Part.batch:
                return False
        return False

    def get(self, run: Run, batch: Batch, compute: Compute) -> dict[str, Tensor]:
        """What ``compute`` would say of an unchanged batch; the whole split is gone through at the first call.

        In batches of the training's size, so that the arithmetic is the same.
        """
        x = batch.x
        autocast = torch.get_autocast_dtype(x.device.type) if torch.is_autocast_enabled(x.device.type) else None
        how = (x.device, autocast)
        if self._split is not run.data.train or self._how != how:
            self._split, self._how = run.data.train, how
            self._rows = self._fill(run, batch, compute)
        if self._rows is None:
            return compute(x)
        self.hits += 1
        return {name: rows[batch.index] for name, rows in self._rows.items()}

    def _fill(self, run: Run, batch: Batch, compute: Compute) -> dict[str, Tensor] | None:
        split = run.data.train
        one = compute(batch.x[:1])
        if len(split) * sum(value.numel() * value.element_size() for value in one.values()) > LIMIT:
            return None
        rows: dict[str, Tensor] = {}
        trainer = run.settings.trainer
        for part in batches(split, trainer.rows, shuffle=False, workers=trainer.workers):
            for name, value in compute(part.x.to(batch.x.device)).items():
                if name not in rows:
                    rows[name] = torch.empty((len(split), *value.shape[1:]), dtype=value.dtype, device=value.device)
                rows[name][part.index.to(value.device)] = value
        return rows
