"""Relational distillation: how samples lie to each other, whatever the space (Park et al. 2019, arXiv:1904.05068)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

ANGLE_ROWS = 128
"""Rows of a batch among which angles are compared: all triples of N rows take N³ numbers."""


def distance_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Huber loss between distances of all pairs, each over their mean in the batch.

    Args:
        student: embeddings ``(N, F)``.
        teacher: embeddings ``(N, G)``.

    Returns:
        mean over the pairs of different rows; 0 for fewer than two rows.
    """
    if len(student) < 2:
        return student.sum() * 0
    pairs = torch.triu_indices(len(student), len(student), 1, device=student.device)
    return functional.smooth_l1_loss(_distances(student, pairs), _distances(teacher, pairs))


def angle_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Huber loss between the cosines of the angles at ``j`` of all triples ``(i, j, k)``.

    Args:
        student: embeddings ``(N, F)``; the first :data:`ANGLE_ROWS` count.
        teacher: embeddings ``(N, G)``.

    Returns:
        mean over the triples of different rows; 0 for fewer than three rows.
    """
    rows = min(len(student), ANGLE_ROWS)
    if rows < 3:
        return student.sum() * 0
    # where two of the three are one row, both sides have the same cosine (0 or 1), so that nothing needs a mask
    total: Tensor = functional.smooth_l1_loss(_cosines(student[:rows]), _cosines(teacher[:rows]), reduction="sum")
    return total / (rows * (rows - 1) * (rows - 2))


def _distances(x: Tensor, pairs: Tensor) -> Tensor:
    """Euclidean distances over their mean, ``(pairs,)``."""
    found = torch.linalg.vector_norm(x[pairs[0]] - x[pairs[1]], dim=1)
    shares: Tensor = found / found.mean().clamp_min(1e-12)
    return shares


def _cosines(x: Tensor) -> Tensor:
    """Cosine of the angle at ``j`` between ``i`` and ``k``, ``(j, i, k)``."""
    edges = functional.normalize(x[None] - x[:, None], dim=2)
    return edges @ edges.transpose(1, 2)
