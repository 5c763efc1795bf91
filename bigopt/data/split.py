"""Seeded, disjoint, stratified splits."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence

import torch
from torch import Tensor

from bigopt.data.stream import StreamSplit
from bigopt.vocabulary.data import Split, TensorSplit
from bigopt.vocabulary.errors import RequestError


def generator(seed: int, *purpose: str | int) -> torch.Generator:
    """A random generator of its own for each purpose, so that one choice does not shift another.

    Args:
        seed: the run's seed.
        purpose: words and numbers that tell the choices apart, such as ``"split"`` or an epoch.
    """
    digest = hashlib.sha256(repr((int(seed), *purpose)).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)


def split_indices(
    y: Tensor, val: float, test: float, seed: int, stratify: bool = True
) -> tuple[Tensor, Tensor, Tensor]:
    """Positions of the training, validation and test samples: disjoint, and together all of them.

    A share is rounded up to whole samples. Stratified, each class gets its part of that within one sample (largest
    remainders), and keeps at least one training sample.

    Args:
        y: labels ``(N,)`` int64; only its length counts without stratification.
        val: share of the samples for validation, in [0, 1).
        test: share for testing, in [0, 1).
        seed: same seed, same splits.
        stratify: keep the classes' shares; False for regression.

    Returns:
        three sorted int64 tensors.

    Raises:
        RequestError: a share out of range.
    """
    problems = [
        f"dataset.{name}: got {share}, expected a share of the samples: 0 or more, and less than 1"
        for name, share in (("val", val), ("test", test))
        if not 0 <= share < 1
    ]
    if not problems and val + test >= 1:
        problems = [f"dataset.val, dataset.test: {val} + {test} leaves no training samples, their sum must be below 1"]
    if problems:
        raise RequestError(problems)
    total, random = len(y), generator(seed, "split")
    order = torch.randperm(total, generator=random)
    n_test, n_val = _whole(total, test), _whole(total, val)
    if not stratify:
        parts = order[:n_test], order[n_test : n_test + n_val], order[n_test + n_val :]
    else:
        parts = _stratified(y, order, n_test, n_val)
    tested, validated, trained = (part.sort().values for part in parts)
    return trained, validated, tested


def refuse_empty(parts: Sequence[Tensor], val: float, test: float, where: str = "dataset") -> None:
    """Raises RequestError if one of the three parts that :func:`split_indices` gave has no samples.

    Args:
        parts: positions of the training, validation and test samples.
        val: share that was asked for.
        test: share that was asked for.
        where: how the message begins.
    """
    total = sum(len(rows) for rows in parts)
    empty = [name for name, rows in zip(("train", "val", "test"), parts, strict=True) if len(rows) == 0]
    if empty:
        raise RequestError(
            [f"{where}: the {name} split of {total} samples is empty (val={val}, test={test})" for name in empty]
        )


def _whole(total: int, share: float) -> int:
    """Samples that a share means; a product such as 0.1 × 60,000 must not be rounded up for its last binary digit."""
    return math.ceil(total * share - 1e-6)


def _stratified(y: Tensor, order: Tensor, n_test: int, n_val: int) -> tuple[Tensor, Tensor, Tensor]:
    members = [order[y[order] == label] for label in y.unique().tolist()]
    sizes = [len(rows) for rows in members]
    spare = [size - 1 for size in sizes]
    tested = _allocate(sizes, n_test, spare)
    validated = _allocate(sizes, n_val, [room - taken for room, taken in zip(spare, tested, strict=True)])
    parts: tuple[list[Tensor], list[Tensor], list[Tensor]] = ([], [], [])
    for rows, t, v in zip(members, tested, validated, strict=True):
        for part, chosen in zip(parts, (rows[:t], rows[t : t + v], rows[t + v :]), strict=True):
            part.append(chosen)
    none = order[:0]
    return torch.cat([none, *parts[0]]), torch.cat([none, *parts[1]]), torch.cat([none, *parts[2]])


def _allocate(sizes: list[int], total: int, room: list[int]) -> list[int]:
    """Distributes ``total`` over classes in proportion to their sizes, by largest remainders, within their room."""
    everything = max(sum(sizes), 1)
    quotas = [size * total / everything for size in sizes]
    taken = [min(math.floor(quota), free) for quota, free in zip(quotas, room, strict=True)]
    by_remainder = sorted(range(len(sizes)), key=lambda i: (math.floor(quotas[i]) - quotas[i], i))
    left = total - sum(taken)
    for i in by_remainder:
        if left > 0 and taken[i] < room[i]:
            taken[i] += 1
            left -= 1
    return taken


def subset(split: Split, index: Tensor) -> Split:
    """The samples of a split at these positions, as a split of their own."""
    if isinstance(split, TensorSplit):
        return TensorSplit(split.x[index], split.y[index])
    if isinstance(split, StreamSplit):
        return split.subset(index)
    raise TypeError(f"cannot take a subset of {type(split).__name__}: expected TensorSplit or StreamSplit")
