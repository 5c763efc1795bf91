"""The two domains: labelled source splits, and target inputs from which labels cannot be reached."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from bigopt.data import StreamSplit, fit_normalization, generator, hide_labels, subset
from bigopt.data.labels import NO_LABEL
from bigopt.vocabulary.data import Data, Split, TensorSplit
from bigopt.vocabulary.errors import RequestError

PATH = "transfer.source"


@dataclass(frozen=True)
class Target:
    """What is known of the target.

    Attributes:
        pool: training inputs, without labels.
        held_out: validation inputs, without labels.
        few: labelled training samples of a few-label target; None for none.
    """

    pool: Split
    held_out: Split
    few: Split | None = None


def without_labels(split: Split) -> Split:
    """The same inputs with filler for labels; the labels themselves are not even looked at."""
    if isinstance(split, TensorSplit):
        return TensorSplit(split.x, torch.full((len(split),), NO_LABEL))
    return hide_labels(split)


def target_of(data: Data, labelled: bool) -> Target:
    """The target's inputs, and its training labels if they may be used.

    Args:
        data: the target's dataset.
        labelled: whether the training split is a small labelled one.
    """
    pool = data.unlabelled if labelled and data.unlabelled is not None else data.train
    return Target(without_labels(pool), without_labels(data.val), data.train if labelled else None)


def together(source: Data, target: Data, known: Target, method: str) -> Data:
    """The data that are trained on: source training and validation, the target's inputs, the target's test split."""
    facts = repr((source.fingerprint, target.fingerprint, known.few is not None))
    return replace(
        target,
        train=source.train,
        val=source.val,
        unlabelled=known.pool,
        mean=source.mean,
        std=source.std,
        fingerprint=hashlib.sha256(facts.encode()).hexdigest(),
        notes=(
            *target.notes,
            *(f"source: {note}" for note in source.notes),
            f"domain_adaptation ({method}): labels are those of {source.name}; val/… is measured on its validation "
            f"split, target/… on validation inputs of {target.name}; the test split is that of {target.name}",
        ),
        details={**target.details, "source": source.name},
    )


def split_spec(source: str | Mapping[str, Any] | None) -> tuple[str | Mapping[str, Any] | None, float]:
    """The source without its ``imbalance``, and that.

    Raises:
        RequestError: an imbalance below 1.
    """
    if not isinstance(source, Mapping):
        return source, 1.0
    rest = {key: value for key, value in source.items() if key != "imbalance"}
    ratio = source.get("imbalance")
    ratio = 1.0 if ratio is None else ratio
    if isinstance(ratio, bool) or not isinstance(ratio, int | float) or not ratio >= 1:
        raise RequestError(f"{PATH}.imbalance: got {ratio!r}, expected a ratio of 1 or more")
    return rest, float(ratio)


def relabelled(data: Data, place: Tensor, names: tuple[str, ...]) -> Data:
    """The data with label ``k`` called ``place[k]``, as the target numbers its classes."""
    if torch.equal(place, torch.arange(len(place))):
        return data

    def moved(split: Split) -> Split:
        if isinstance(split, StreamSplit):
            return StreamSplit(split.load, place[split.y], split.position)
        assert isinstance(split, TensorSplit)
        return replace(split, y=place[split.y])

    return replace(
        data,
        schema=replace(data.schema, class_names=names),
        train=moved(data.train),
        val=moved(data.val),
        test=None,
        unlabelled=None,
        fingerprint=hashlib.sha256(f"{data.fingerprint} {place.tolist()}".encode()).hexdigest(),
    )


def long_tailed(data: Data, ratio: float, seed: int) -> Data:
    """Training and validation samples of which class k of K keeps ``n · ratio^(-k / (K - 1))``.

    ``n`` is the size of the smallest class: the first class then has ``ratio`` times the samples of the last, the
    exponential profile of Cui et al. 2019 (arXiv:1901.05555). Every class keeps a sample.

    Args:
        data: a classification set.
        ratio: 1 or more.
        seed: of the choice.
    """
    train, val = _tailed(data.train, ratio, seed, "train"), _tailed(data.val, ratio, seed, "val")
    mean, std = fit_normalization(train, data.schema.kind)
    return replace(
        data,
        train=train,
        val=val,
        test=None,
        unlabelled=None,
        mean=mean,
        std=std,
        fingerprint=hashlib.sha256(f"{data.fingerprint} {ratio} {seed}".encode()).hexdigest(),
        notes=(
            *data.notes,
            f"{PATH}.imbalance={ratio:g}: {len(train)} of {len(data.train)} training samples are kept, from "
            f"{int(train.y.bincount().max())} of the most frequent class to {int(train.y.bincount().min())}",
        ),
    )


def _tailed(split: Split, ratio: float, seed: int, purpose: str) -> Split:
    order = torch.randperm(len(split), generator=generator(seed, "imbalance", purpose))
    labels = split.y.unique().tolist()
    smallest = min(int((split.y == label).sum()) for label in labels)
    kept = []
    for place, label in enumerate(labels):
        count = smallest * ratio ** (-place / max(1, len(labels) - 1))
        kept.append(order[split.y[order] == label][: max(1, round(count))])
    return subset(split, torch.cat(kept).sort().values)


def drawn(samples: int, rows: int) -> Tensor:
    """Positions of a random batch, without repeats where the samples suffice; from the fit's own random numbers."""
    if rows <= samples <= 1 << 16:
        return torch.randperm(samples)[:rows]
    return torch.randint(samples, (rows,))


class Balance:
    """Draws rows so that every class is as likely (class-aware sampling, Shen et al. 2016, arXiv:1512.05830).

    Args:
        y: labels ``(N,)``.
    """

    def __init__(self, y: Tensor) -> None:
        self.order = y.argsort(stable=True)
        counts = y.bincount()
        self.present = counts.nonzero().squeeze(1)
        self.counts = counts[self.present]
        self.starts = self.counts.cumsum(0) - self.counts

    def draw(self, rows: int) -> Tensor:
        """Positions ``(rows,)`` in the split, from the fit's own random numbers."""
        kind = torch.randint(len(self.present), (rows,))
        inside = (torch.rand(rows) * self.counts[kind]).long().minimum(self.counts[kind] - 1)
        return self.order[self.starts[kind] + inside]
