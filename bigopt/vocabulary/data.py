"""What a dataset plugin returns: splits and the schema that describes them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import torch
from torch import Tensor

TaskName = Literal["classification", "regression"]
Kind = Literal["image", "tabular", "text"]


@dataclass(frozen=True)
class Schema:
    """What every sample of a dataset looks like.

    Attributes:
        task: classification or regression.
        kind: image ``(C, H, W)`` float in [0, 1], tabular ``(F,)`` float, text ``(L,)`` int64 token ids.
        shape: shape of one sample, without the batch dimension.
        num_classes: number of classes, or of regression targets.
        class_names: names in label order; empty for regression.
        vocab_size: number of tokens, text only.
        pad_id: token that fills short texts, text only.
        flips: whether a horizontally flipped image is still of its class (False for digits).
    """

    task: TaskName
    kind: Kind
    shape: tuple[int, ...]
    num_classes: int
    class_names: tuple[str, ...] = ()
    vocab_size: int | None = None
    pad_id: int = 0
    flips: bool = False

    def model_arguments(self) -> dict[str, int]:
        """The arguments that a model plugin gets from the data unless they are set (see ARCHITECTURE.md)."""
        known: dict[str, int] = {"num_classes": self.num_classes}
        if self.kind == "image":
            known |= {"in_channels": self.shape[0], "image_size": self.shape[1]}
        if self.kind == "text":
            known |= {"vocab_size": self.vocab_size or 0}
        features = 1
        for size in self.shape:
            features *= size
        return known | {"in_features": features}


class Split(Protocol):
    """A part of a dataset, read by index; small data are tensors in memory, large data stream from disk.

    Attributes:
        y: labels ``(N,)`` int64 or targets ``(N, T)`` float32, always in memory.
        in_memory: True when :meth:`take` is plain tensor indexing.
    """

    y: Tensor
    in_memory: bool

    def __len__(self) -> int: ...

    def take(self, index: Tensor) -> Tensor:
        """Inputs ``(len(index), …)`` of the samples at these positions."""
        ...


@dataclass
class TensorSplit:
    """A split held in memory.

    Attributes:
        x: inputs ``(N, …)``; uint8 images are given as float in [0, 1] by :meth:`take`.
        y: labels ``(N,)`` int64 or targets ``(N, T)`` float32.
    """

    x: Tensor
    y: Tensor
    in_memory: bool = True

    def __len__(self) -> int:
        return len(self.y)

    def take(self, index: Tensor) -> Tensor:
        """Inputs at these positions, images as float in [0, 1]."""
        rows = self.x.index_select(0, index)  # several times faster than indexing
        return rows.float().div_(255) if rows.dtype is torch.uint8 else rows


@dataclass
class Data:
    """A dataset as the pipeline sees it. The test split is read through :meth:`read_test` only, which counts.

    Attributes:
        name: the plugin's name.
        schema: what a sample looks like.
        train: training split; normalisation, calibration and everything learned comes from here.
        val: validation split; every selection reads this one.
        test: test split, or None inside a sweep's trials.
        unlabelled: training samples whose labels must not be read, or None.
        mean: per channel (image) or feature (tabular) mean of the training split, None for text.
        std: matching standard deviation, never zero.
        fingerprint: SHA-256 over the content, the splits and the arguments.
        notes: what the data path did and a reader of the report should know (resizing, resampling, dropped rows).
        details: anything a plugin wants to hand on (tokenizer folder, column names).
    """

    name: str
    schema: Schema
    train: Split
    val: Split
    test: Split | None
    unlabelled: Split | None = None
    mean: Tensor | None = None
    std: Tensor | None = None
    fingerprint: str = ""
    notes: tuple[str, ...] = ()
    details: Mapping[str, Any] = field(default_factory=dict)
    test_reads: int = 0

    def read_test(self) -> Split:
        """The test split, counted: the report says how often it was read."""
        if self.test is None:
            raise RuntimeError("the test split is not available inside a sweep's trials")
        self.test_reads += 1
        return self.test
