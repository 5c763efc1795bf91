"""Changed copies of the training split that are drawn once."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from bigopt.data.batches import batches
from bigopt.data.split import generator
from bigopt.data.stream import as_float
from bigopt.vocabulary.batch import Batch
from bigopt.vocabulary.data import Split
from bigopt.vocabulary.errors import RequestError
from bigopt.vocabulary.run import Run

ROWS = 128
"""Images that are changed at once: a change that is drawn for a whole batch is drawn for so many."""


class Copies:
    """A number of changed copies of a split of images, held as bytes: ``(copies, N, C, H, W)``.

    Since they are fixed, what a teacher says of them can be kept. Whoever copies the Part shares them.

    Args:
        run: gives the split, and the seed that the changes follow from.
        change: of images ``(N, C, H, W)`` in [0, 1].
        copies: how many.

    Raises:
        RequestError: the split does not fit in memory, or its copies do not.
    """

    def __init__(self, run: Run, change: nn.Module, copies: int) -> None:
        self.split: Split = run.data.train
        if not self.split.in_memory:
            raise RequestError(f"augment.copies: needs data in memory, and {run.data.name} is read from files; take 0")
        one = self.split.take(torch.arange(1))[0]
        shape = (copies, len(self.split), *one.shape)
        try:
            self.x = torch.empty(shape, dtype=torch.uint8)
        except RuntimeError as error:
            size = one.numel() * len(self.split) / 1e9
            raise RequestError(f"augment.copies: no room for {copies} copies of {size:.1f} GB each") from error
        run.progress.start("augmented copies", copies)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(generator(run.seed, "augment").initial_seed())
            for copy in self.x:
                for batch in batches(self.split, ROWS, shuffle=False):
                    copy[batch.index] = change(batch.x).clamp(0, 1).mul_(255).round_().to(torch.uint8)
                run.progress.advance()
        run.progress.stop()

    def __deepcopy__(self, memo: dict[int, Any]) -> Copies:
        """Itself: it never changes."""
        return self

    def holds(self, batch: Batch) -> bool:
        """Whether the batch's rows are the split's own."""
        source = batch.fixed()
        return source is not None and source.split is self.split and source.copies == 1

    def draw(self, batch: Batch) -> Batch:
        """The batch with every row from one of the copies, at random."""
        number = torch.randint(len(self.x), (len(batch.index),))
        rows = self.x.flatten(0, 1).index_select(0, number * len(self.split) + batch.index.cpu())
        device = batch.x.device
        changed = batch.with_(x=as_float(rows.to(device)))
        return changed.from_(self.split, (number + 1).to(device), 1 + len(self.x))
