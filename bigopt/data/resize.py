"""Images that are smaller than a model can take, enlarged once."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional

from bigopt.data.normalization import fit_normalization
from bigopt.data.stream import StreamSplit
from bigopt.vocabulary.data import Data, Split, TensorSplit
from bigopt.vocabulary.errors import RequestError

_CHUNK = 1024
_MEMORY = 1 << 30


def resize_for(data: Data, minimum: int) -> Data:
    """The same data with images of at least ``minimum`` × ``minimum`` pixels, saying so in the notes.

    Bilinear, once, and kept in memory while a split stays below 1 GiB; larger splits are enlarged as they are read.
    Data that are large enough are returned as they are.

    Args:
        data: an image set.
        minimum: smallest height and width that the model takes, pixels.

    Raises:
        RequestError: the data are not images.
    """
    if data.schema.kind != "image":
        raise RequestError(f"dataset: {data.name!r} holds {data.schema.kind} data, which cannot be resized")
    channels, height, width = data.schema.shape
    if min(height, width) >= minimum:
        return data
    scale = minimum / min(height, width)
    size = (max(minimum, round(height * scale)), max(minimum, round(width * scale)))
    train = _resized(data.train, size)
    mean, std = fit_normalization(train, "image")
    return replace(
        data,
        schema=replace(data.schema, shape=(channels, *size)),
        train=train,
        val=_resized(data.val, size),
        test=None if data.test is None else _resized(data.test, size),
        unlabelled=_resized_unlabelled(data, train, size),
        mean=mean,
        std=std,
        fingerprint=hashlib.sha256(f"{data.fingerprint} {size}".encode()).hexdigest(),
        notes=(*data.notes, f"images were enlarged from {height}×{width} to {size[0]}×{size[1]} pixels for the model"),
        details={**data.details, "enlarged_from": (height, width)},
    )


def _resized_unlabelled(data: Data, train: Split, size: tuple[int, int]) -> Split | None:
    if data.unlabelled is None:
        return None
    return train if data.unlabelled is data.train else _resized(data.unlabelled, size)


def _resized(split: Split, size: tuple[int, int]) -> Split:
    if isinstance(split, StreamSplit):
        return StreamSplit(_Resize(split.load, size), split.y, split.position)
    if not isinstance(split, TensorSplit):
        raise TypeError(f"cannot resize {type(split).__name__}: expected TensorSplit or StreamSplit")
    if len(split) * split.x.shape[1] * size[0] * size[1] * split.x.element_size() > _MEMORY:
        return _ResizedSplit(split, size)
    return TensorSplit(torch.cat([_interpolate(rows, size) for rows in split.x.split(_CHUNK)]), split.y)


class _ResizedSplit(TensorSplit):
    """A split in memory whose images are enlarged as they are read."""

    def __init__(self, split: TensorSplit, size: tuple[int, int]) -> None:
        super().__init__(split.x, split.y)
        self.size = size

    def take(self, index: Tensor) -> Tensor:
        return _interpolate(super().take(index), self.size)


@dataclass
class _Resize:
    """A loader of single images that enlarges them."""

    load: Callable[[int], Tensor]
    size: tuple[int, int]

    def __call__(self, place: int) -> Tensor:
        return _interpolate(self.load(place).unsqueeze(0), self.size)[0]

    def identity(self) -> str:
        inner = getattr(self.load, "identity", None)
        return f"{inner() if inner is not None else ''} {self.size}"


def _interpolate(rows: Tensor, size: tuple[int, int]) -> Tensor:
    """Bilinear; uint8 images stay uint8."""
    enlarged = functional.interpolate(rows.float(), size=size, mode="bilinear", align_corners=False)
    return enlarged.round().clamp(0, 255).to(torch.uint8) if rows.dtype is torch.uint8 else enlarged
