"""What flows through one training step."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import IntEnum
from typing import Any

import torch
from torch import Tensor

from bigopt.vocabulary.data import Split


class Role(IntEnum):
    """What a row of a batch may be used for."""

    LABELLED = 0
    UNLABELLED = 1
    TARGET = 2


@dataclass(frozen=True)
class Source:
    """Which fixed samples the rows of a batch are, so that what is said of them can be kept; see :class:`Answers`.

    Attributes:
        split: in which ``Batch.index`` counts.
        x: the rows as they were given; a batch that holds others, or changed ones, is of no source any more.
        version: of ``x`` when it was given, which changes in place count up.
        copy: the fixed, changed copy of the split ``(N,)`` that each row is from; 0, or None for all, is the split.
        copies: how many there are, the split itself among them.
    """

    split: Split
    x: Tensor
    version: int
    copy: Tensor | None = None
    copies: int = 1


@dataclass
class Batch:
    """Rows of one training step; rows of different roles may share a batch so that they share one forward pass.

    Attributes:
        x: inputs ``(N, …)``: images ``(N, C, H, W)`` in [0, 1], features ``(N, F)``, token ids ``(N, L)``.
        y: labels ``(N,)`` int64, soft labels ``(N, K)``, targets ``(N, T)`` float; rows that are not labelled hold a
            filler. None when no row is labelled.
        index: position ``(N,)`` of each row in its split, for cached per-sample values; -1 for rows from elsewhere.
        role: :class:`Role` of each row ``(N,)`` int64. None means that every row is labelled.
        views: further augmented views of the same rows, by name, each ``(N, …)``.
        source: which fixed samples the rows are; None for rows that occur once.
    """

    x: Tensor
    y: Tensor | None
    index: Tensor
    role: Tensor | None = None
    views: dict[str, Tensor] = field(default_factory=dict)
    source: Source | None = None

    def from_(self, split: Split, copy: Tensor | None = None, copies: int = 1) -> Batch:
        """The same batch, whose rows are declared to be fixed samples of a split (see :class:`Source`)."""
        return replace(self, source=Source(split, self.x, self.x._version, copy, copies))

    def fixed(self) -> Source | None:
        """The source, if the rows still are as they came from there; None when anyone has changed them."""
        source = self.source
        return source if source is not None and self.x is source.x and self.x._version == source.version else None

    def rows(self, role: Role) -> Tensor:
        """Boolean mask ``(N,)`` of the rows with this role."""
        if self.role is None:
            return torch.full((len(self.x),), role is Role.LABELLED, dtype=torch.bool, device=self.x.device)
        return self.role == int(role)

    def with_(self, **changes: Any) -> Batch:
        """A copy with some attributes replaced."""
        return replace(self, **changes)


@dataclass
class Output:
    """What one forward pass gave.

    Attributes:
        logits: class scores ``(N, K)``, or predictions ``(N, T)`` for regression.
        taps: outputs of the named modules that a Part asked for, by module name.
    """

    logits: Tensor
    taps: dict[str, Tensor] = field(default_factory=dict)
