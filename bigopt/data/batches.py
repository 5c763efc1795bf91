"""The batch iterator: whole batches by indexing, in an order that follows from seed and epoch alone."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from bigopt.data.labels import has_labels
from bigopt.data.split import generator
from bigopt.data.stream import StreamSplit, as_float
from bigopt.vocabulary.batch import Batch, Role
from bigopt.vocabulary.data import Split
from bigopt.vocabulary.errors import RequestError


def batch_count(samples: int, batch_size: int, *, drop_last: bool = False, world_size: int = 1) -> int:
    """Batches that each rank gets in one epoch; the same on every rank.

    Args:
        samples: samples of all ranks together.
        batch_size: rows of one batch on one rank.
        drop_last: leave out a last, smaller batch, unless it is the only one.
        world_size: number of ranks.
    """
    if samples == 0:
        return 0
    if drop_last:
        return max(1, samples // (world_size * batch_size))
    return math.ceil(math.ceil(samples / world_size) / batch_size)


def epoch_order(samples: int, seed: int, epoch: int, shuffle: bool = True) -> Tensor:
    """Order ``(samples,)`` in which an epoch visits the samples."""
    if not shuffle:
        return torch.arange(samples)
    return torch.randperm(samples, generator=generator(seed, "epoch", epoch))


def batches(
    split: Split,
    batch_size: int,
    indices: Tensor | None = None,
    *,
    seed: int = 0,
    epoch: int = 0,
    shuffle: bool = True,
    drop_last: bool = False,
    start: int = 0,
    rank: int = 0,
    world_size: int = 1,
    workers: int = 0,
) -> Iterator[Batch]:
    """Batches of one epoch over a split.

    The order depends on seed, epoch and the number of samples only, so that an epoch can go on at any batch, and every
    rank sees its own rows of one common order. Rows are repeated from the order's beginning where ranks would
    otherwise get different numbers of rows. Rows of a split without labels come as :attr:`Role.UNLABELLED`.

    Args:
        split: in memory: batches are cut by indexing; streaming: worker processes read them ahead.
        batch_size: rows of one batch (on this rank).
        indices: positions to visit instead of the whole split; ``Batch.index`` still counts in the split.
        seed: of the shuffling.
        epoch: of the shuffling.
        shuffle: False visits the samples as they lie.
        drop_last: leave out a last, smaller batch, unless it is the only one.
        start: batches to skip, for resuming within an epoch; nothing is read for them.
        rank: of this process.
        world_size: number of processes.
        workers: processes that read a streaming split; unused in memory.

    Yields:
        on the CPU: ``x`` float (or token ids), ``y``, ``index``, and the split as ``source``.
    """
    chunks = _chunks(len(split), batch_size, indices, seed, epoch, shuffle, drop_last, rank, world_size)[start:]
    unlabelled = not has_labels(split)
    rows = _streamed(split, chunks, workers) if isinstance(split, StreamSplit) else map(split.take, chunks)
    for index, x in zip(chunks, rows, strict=True):
        role = torch.full((len(index),), int(Role.UNLABELLED)) if unlabelled else None
        yield Batch(x, None if unlabelled else split.y[index], index, role).from_(split)


def _chunks(
    samples: int,
    batch_size: int,
    indices: Tensor | None,
    seed: int,
    epoch: int,
    shuffle: bool,
    drop_last: bool,
    rank: int,
    world_size: int,
) -> list[Tensor]:
    """This rank's batches as positions in the split."""
    if batch_size < 1:
        raise ValueError(f"batch_size: got {batch_size}, expected at least 1")
    visited = samples if indices is None else len(indices)
    order = epoch_order(visited, seed, epoch, shuffle)
    if indices is not None:
        order = indices[order]
    count = batch_count(visited, batch_size, drop_last=drop_last, world_size=world_size)
    if world_size > 1 and visited:
        rows = math.ceil(visited / world_size)
        order = order.repeat(math.ceil(rows * world_size / visited))[: rows * world_size][rank::world_size]
    return [order[i * batch_size : (i + 1) * batch_size] for i in range(count)]


def _streamed(split: StreamSplit, chunks: list[Tensor], workers: int) -> Iterator[Tensor]:
    from torch.utils.data import DataLoader

    loader: DataLoader[Any] = DataLoader(
        _Reader(split),
        batch_sampler=[chunk.tolist() for chunk in chunks],
        num_workers=workers,
        collate_fn=_same,
    )
    for rows in loader:
        if isinstance(rows, _Unreadable):
            raise RequestError(rows.problems)
        yield as_float(rows)


class _Unreadable:
    """A worker's error, carried as a value: a loader would wrap an exception's one line into a traceback."""

    def __init__(self, problems: tuple[str, ...]) -> None:
        self.problems = problems


class _Reader(torch.utils.data.Dataset[Any]):
    """Reads whole batches of a streaming split, for a loader."""

    def __init__(self, split: StreamSplit) -> None:
        self.split = split

    def __len__(self) -> int:
        return len(self.split)

    def __getitems__(self, index: list[int]) -> Tensor | _Unreadable:
        try:
            return self.split.read(torch.tensor(index))
        except RequestError as error:
            return _Unreadable(error.problems)


def _same(rows: Any) -> Any:
    return rows
