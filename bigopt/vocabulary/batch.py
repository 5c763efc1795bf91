"""What flows through one training step."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import IntEnum
from typing import Any

import torch
from torch import Tensor


class Role(IntEnum):
    """What a row of a batch may be used for."""

    LABELLED = 0
    UNLABELLED = 1
    TARGET = 2


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
    """

    x: Tensor
    y: Tensor | None
    index: Tensor
    role: Tensor | None = None
    views: dict[str, Tensor] = field(default_factory=dict)

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
