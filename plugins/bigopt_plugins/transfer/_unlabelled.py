"""Training samples without labels: where they come from, and in what order they join the labelled batches."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn

from bigopt.data import has_labels, resize_for, subset
from bigopt.train import ddp
from bigopt.vocabulary.batch import Batch, Role
from bigopt.vocabulary.data import Data, Split
from bigopt.vocabulary.errors import RequestError
from bigopt.vocabulary.run import Run


def unlabelled_of(run: Run, strategy: str) -> Split:
    """The run's unlabelled samples; those that ``labels_per_class`` put aside are fetched where they were dropped.

    Args:
        run: whose data is meant.
        strategy: the plugin that asks, for messages.

    Raises:
        RequestError: there are none, the task has no classes, or there are no labelled samples either.
    """
    data = run.data
    if data.schema.task != "classification":
        raise RequestError(f"transfer={strategy} needs classes, but {data.name} is a regression set")
    if not has_labels(data.train):
        raise RequestError("dataset.labels_per_class: got 0, expected at least 1 labelled sample a class")
    found = data.unlabelled if data.unlabelled is not None else _put_aside(run)
    if found is None or len(found) == 0:
        raise RequestError(
            f"transfer={strategy} needs unlabelled samples, and {data.name} has none: set dataset.unlabelled=true, "
            "and dataset.labels_per_class to the number of labels to learn from"
        )
    return found


def _put_aside(run: Run) -> Split | None:
    """The samples that lost their label and were dropped, as the dataset's plugin gives them when it is asked."""
    spec = run.settings.extra.get("dataset")
    if not isinstance(spec, Mapping) or spec.get("labels_per_class") is None:
        return None
    data: Data = run.build.dataset({**spec, "unlabelled": True})
    if data.schema.kind == "image" and data.schema.shape != run.data.schema.shape:
        data = resize_for(data, run.data.schema.shape[1])
    return data.unlabelled


def one_pass(data: Data, ratio: int, batch_size: int) -> Data:
    """The data with its labelled samples repeated so that one epoch takes in every unlabelled one once.

    Args:
        data: with ``unlabelled`` samples.
        ratio: unlabelled samples for each labelled one in a batch.
        batch_size: labelled samples of one batch.
    """
    assert data.unlabelled is not None
    labelled = len(data.train)
    steps = math.ceil(len(data.unlabelled) / (ratio * batch_size))
    rows = steps * batch_size
    if rows <= labelled:
        return data
    index = torch.arange(labelled).repeat(math.ceil(rows / labelled))[:rows]
    return replace(data, train=subset(data.train, index), fingerprint=f"{data.fingerprint}*{rows}")


class Deck(nn.Module):
    """Positions of unlabelled samples in a random order, each once before any comes again.

    It is a module so that a checkpoint holds where it stands.

    Args:
        rows: number of unlabelled samples.
    """

    order: Tensor
    drawn: Tensor

    def __init__(self, rows: int) -> None:
        super().__init__()
        self.rows = rows
        self.register_buffer("order", torch.arange(rows))
        self.register_buffer("drawn", torch.tensor(rows))

    def draw(self, count: int) -> Tensor:
        """The next positions ``(count,)`` int64 on the CPU; ranks take turns."""
        world = ddp.world_size()
        wanted, parts, start = count * world, [], int(self.drawn)
        while wanted:
            if start >= self.rows:
                self.order.copy_(torch.randperm(self.rows))
                start = 0
            parts.append(self.order[start : start + wanted])
            start += len(parts[-1])
            wanted -= len(parts[-1])
        self.drawn.fill_(start)
        return torch.cat(parts).cpu()[ddp.rank() :: world]


def joined(batch: Batch, x: Tensor, index: Tensor, views: Mapping[str, Tensor]) -> Batch:
    """A batch followed by unlabelled rows.

    Args:
        batch: labelled rows ``(N, …)``.
        x: inputs of the unlabelled rows ``(M, …)``.
        index: their positions ``(M,)`` in the unlabelled split.
        views: further views ``(N + M, …)`` of all rows.
    """
    device, count = batch.x.device, len(x)
    assert batch.y is not None
    role = batch.role if batch.role is not None else torch.zeros(len(batch.x), dtype=torch.int64, device=device)
    added = torch.full((count,), int(Role.UNLABELLED), device=device)
    filler = torch.full((count, *batch.y.shape[1:]), -1, dtype=batch.y.dtype, device=device)
    return Batch(
        x=torch.cat([batch.x, x]),
        y=torch.cat([batch.y, filler]),
        index=torch.cat([batch.index, index.to(device)]),
        role=torch.cat([role, added]),
        views=dict(views),
    )
