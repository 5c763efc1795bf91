"""The training batches of one epoch after another, from any batch on."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from bigopt.data.batches import batches
from bigopt.train import ddp
from bigopt.train.job import Job
from bigopt.vocabulary.batch import Batch


class EpochLoader:
    """Batches of the present epoch; what comes first is set by :meth:`go_to`."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.epoch = 0
        self.start = 0

    def go_to(self, epoch: int, batch: int = 0) -> None:
        """The next iteration gives this epoch (0-based) from this batch on."""
        self.epoch, self.start = epoch, batch

    def __len__(self) -> int:
        return self.job.batches

    def __iter__(self) -> Iterator[Batch]:
        job = self.job
        return batches(
            job.run.data.train,
            job.batch_size,
            seed=job.seed,
            epoch=self.epoch,
            drop_last=job.drop_last,
            start=self.start,
            rank=ddp.rank(),
            world_size=ddp.world_size(),
            workers=job.run.settings.trainer.workers,
        )


def to_device(batch: Batch, device: torch.device) -> Batch:
    """The same batch on another device."""

    def move(tensor: Tensor | None) -> Any:
        return None if tensor is None else tensor.to(device, non_blocking=True)

    views = {name: move(view) for name, view in batch.views.items()}
    moved = Batch(move(batch.x), move(batch.y), move(batch.index), move(batch.role), views)
    source = batch.fixed()
    return moved if source is None else moved.from_(source.split, move(source.copy), source.copies)
