"""Samples mixed with each other, and their labels with them."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from bigopt.vocabulary.batch import Batch, Role
from bigopt.vocabulary.data import TaskName


def mixup(batch: Batch, alpha: float, task: TaskName, num_classes: int) -> Batch:
    """``λ x + (1 - λ) x'`` with labels alike, λ from Beta(alpha, alpha) for the batch (Zhang et al. 2018,
    arXiv:1710.09412). Only labelled rows are mixed, with each other.
    """
    found = _partners(batch, alpha)
    if found is None:
        return batch
    rows, partners, share = found
    x = batch.x.clone()
    x[rows] = share * batch.x[rows] + (1 - share) * batch.x[partners]
    return batch.with_(x=x, y=_labels(batch, rows, partners, share, task, num_classes))


def cutmix(batch: Batch, alpha: float, task: TaskName, num_classes: int) -> Batch:
    """A rectangle of another image, labels by area (Yun et al. 2019, arXiv:1905.04899).

    The rectangle covers ``1 - λ`` of the image before it is cut off at the borders; λ is then what is left.
    """
    found = _partners(batch, alpha)
    if found is None:
        return batch
    rows, partners, share = found
    height, width = int(batch.x.shape[2]), int(batch.x.shape[3])
    side = math.sqrt(1 - share)
    top, bottom = _span(height, side)
    left, right = _span(width, side)
    x = batch.x.clone()
    x[rows, :, top:bottom, left:right] = batch.x[partners][:, :, top:bottom, left:right]
    left_over = 1 - (bottom - top) * (right - left) / (height * width)
    return batch.with_(x=x, y=_labels(batch, rows, partners, left_over, task, num_classes))


def _partners(batch: Batch, alpha: float) -> tuple[Tensor, Tensor, float] | None:
    """Labelled rows, the row that each is mixed with, and λ; None where there are no two."""
    rows = batch.rows(Role.LABELLED).nonzero()[:, 0]
    if batch.y is None or len(rows) < 2:
        return None
    share = float(torch.distributions.Beta(alpha, alpha).sample())
    return rows, rows[torch.randperm(len(rows), device="cpu").to(rows.device)], share


def _span(size: int, side: float) -> tuple[int, int]:
    """Start and end along one axis: so long a piece around a random centre, inside of the image."""
    centre, half = int(torch.randint(size, ())), int(size * side) / 2
    return max(0, math.floor(centre - half)), min(size, math.floor(centre + half))


def _labels(
    batch: Batch, rows: Tensor, partners: Tensor, share: float, task: TaskName, num_classes: int
) -> Tensor | None:
    """Mixed labels: one-hot ones ``(N, K)`` for classes, targets ``(N, T)`` as they are."""
    if batch.y is None:
        return None
    y = batch.y
    if task == "classification" and y.ndim == 1:
        y = functional.one_hot(y.clamp_min(0), num_classes).float()
    mixed = y.clone()
    mixed[rows] = share * y[rows] + (1 - share) * y[partners]
    return mixed
