"""How close two sets of predictions are, and how large files are."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Literal

from torch import Tensor

from bigopt.vocabulary.task import Task

RELATIVE = 1e-3  # of the reference's largest value: regression predictions within it agree


def agreement(
    reference: Tensor, exported: Tensor, task: Task | Literal["classification", "regression"]
) -> tuple[float, float]:
    """Compares a file's answers with those of the model that it was exported from.

    Args:
        reference: logits ``(N, K)`` or predictions ``(N, T)``.
        exported: the same from the file.
        task: decides what counts as the same answer.

    Returns:
        the largest absolute difference, and the share of rows with the same answer: the same class, or all
        predictions within a thousandth of the reference's largest magnitude in that column. NaN agrees with nothing,
        and makes the difference infinite.
    """
    if reference.shape != exported.shape:
        raise ValueError(f"got predictions of shapes {tuple(reference.shape)} and {tuple(exported.shape)}")
    reference, exported = reference.double(), exported.double()
    difference = (reference - exported).abs().nan_to_num(nan=float("inf"))
    name = task if isinstance(task, str) else task.name
    if name == "classification":
        finite = difference.isfinite().all(1)
        same = (reference.argmax(1) == exported.argmax(1)) & finite
    else:
        same = (difference <= RELATIVE * reference.abs().amax(0).clamp_min(1e-12)).reshape(len(difference), -1).all(1)
    return difference.max().item(), same.double().mean().item()


def sizes(path: Path) -> tuple[int, int]:
    """Bytes of a file on disk, and of the same file deflated at level 9, where sparsity and codebooks show."""
    compressor = zlib.compressobj(9)
    stored = packed = 0
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            stored += len(block)
            packed += len(compressor.compress(block))
    return stored, packed + len(compressor.flush())
