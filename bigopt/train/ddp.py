"""Several processes that run the same pipeline on their share of every batch; rank 0 writes."""

from __future__ import annotations

import os
from typing import Any, TypeVar

from torch import nn

T = TypeVar("T")


def rank() -> int:
    """Number of this process among the ranks; 0 without any."""
    return int(os.environ.get("RANK", "0")) if world_size() > 1 else 0


def world_size() -> int:
    """Number of ranks; 1 without :func:`launch`."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def broadcast_object(obj: T) -> T:
    """Rank 0's object on every rank."""
    if world_size() == 1:
        return obj
    import torch.distributed as dist

    join()
    box: list[Any] = [obj]
    dist.broadcast_object_list(box, src=0)
    result: T = box[0]
    return result


def join() -> None:
    """Joins the group of ranks if that has not happened yet."""
    raise NotImplementedError


def broadcast_state(module: nn.Module) -> None:
    """Rank 0's parameters and buffers on every rank."""
    if world_size() == 1:
        return
