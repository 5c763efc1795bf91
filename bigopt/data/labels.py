"""Fewer samples, fewer labels, and samples whose labels cannot be read."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from bigopt.data.split import generator, subset
from bigopt.data.stream import StreamSplit
from bigopt.vocabulary.data import Split, TensorSplit
from bigopt.vocabulary.errors import RequestError

NO_LABEL = -1
"""Filler of hidden class labels: a loss that reads it fails, instead of learning from it."""


def has_labels(split: Split) -> bool:
    """Whether a split's labels are real; False for what :func:`hide_labels` gave."""
    if split.y.is_floating_point():
        return len(split.y) == 0 or not bool(split.y.isnan().all())
    return len(split.y) == 0 or not bool((split.y == NO_LABEL).all())


def hide_labels(split: Split) -> Split:
    """The same inputs with filler for labels (-1, NaN for regression): the real ones cannot be reached from it."""
    filler: Tensor
    if split.y.is_floating_point():
        filler = torch.full_like(split.y, float("nan"))
    else:
        filler = torch.full_like(split.y, NO_LABEL)
    if isinstance(split, TensorSplit):
        return TensorSplit(split.x, filler)
    if isinstance(split, StreamSplit):
        return StreamSplit(split.load, filler, split.position)
    raise TypeError(f"cannot hide the labels of {type(split).__name__}: expected TensorSplit or StreamSplit")


def limit_samples(split: Split, limit: int | None, seed: int, stratify: bool = True) -> Split:
    """At most ``limit`` samples of a split, drawn at random; stratified, every class keeps its share and a sample.

    Raises:
        RequestError: a limit below 1, or below the number of classes.
    """
    if limit is None or limit >= len(split) > 0:
        return split
    classes = int(split.y.unique().numel()) if stratify else 1
    if limit < classes:
        raise RequestError(f"dataset.limit: got {limit}, expected at least {classes} (one training sample a class)")
    order = torch.randperm(len(split), generator=generator(seed, "limit"))
    if stratify:
        order = _interleave(split.y, order)
    return subset(split, order[:limit].sort().values)


def _interleave(y: Tensor, order: Tensor) -> Tensor:
    """Reorders so that every beginning of the order holds the classes in their shares, each class early."""
    place = torch.empty(len(y), dtype=torch.float64)
    for label in y.unique().tolist():
        rows = order[y[order] == label]
        place[rows] = torch.arange(len(rows), dtype=torch.float64) / len(rows)
    return order[place[order].argsort(stable=True)]


def limit_labels(
    train: Split, labels_per_class: int | None, unlabelled: bool, seed: int, class_names: Sequence[str] = ()
) -> tuple[Split, Split | None]:
    """Keeps few labels of a training split; the other samples become an unlabelled split or go.

    Args:
        train: classification; for regression ``labels_per_class`` must be None.
        labels_per_class: labelled samples kept of each class. None keeps all. 0 keeps none: then ``train`` itself is
            the unlabelled split, its labels hidden (a target domain), which needs ``unlabelled``.
        unlabelled: whether an unlabelled split is wanted: the samples that lost their labels; with
            ``labels_per_class=None`` all training inputs.
        seed: of the choice, and of the unlabelled samples' order (of sorted data it would tell the classes).
        class_names: for messages.

    Returns:
        the training split and the unlabelled one (None when not wanted).

    Raises:
        RequestError: more labels wanted than there are, or a regression set.
    """
    shuffled = torch.randperm(len(train), generator=generator(seed, "unlabelled"))
    if labels_per_class is None:
        return train, hide_labels(subset(train, shuffled)) if unlabelled else None
    _check_labels_per_class(train.y, labels_per_class, unlabelled, class_names)
    if labels_per_class == 0:
        hidden = hide_labels(subset(train, shuffled))
        return hidden, hidden
    order = torch.randperm(len(train), generator=generator(seed, "labels"))
    chosen = [order[train.y[order] == label][:labels_per_class] for label in train.y.unique().tolist()]
    kept = torch.cat(chosen).sort().values
    lost = shuffled[~torch.isin(shuffled, kept)]
    rest = hide_labels(subset(train, lost)) if unlabelled and len(lost) else None
    return subset(train, kept), rest


def _check_labels_per_class(y: Tensor, wanted: int, unlabelled: bool, names: Sequence[str]) -> None:
    at = f"dataset.labels_per_class: got {wanted}"
    if y.is_floating_point():
        raise RequestError(f"{at}, but the dataset is a regression set, which has no classes")
    if wanted < 0:
        raise RequestError(f"{at}, expected 0 or more")
    if wanted == 0 and not unlabelled:
        raise RequestError(f"{at}, which leaves no training data unless dataset.unlabelled=true")
    counts = y.bincount()
    short = [label for label in y.unique().tolist() if counts[label] < wanted]
    if short:
        listed = ", ".join(f"{names[i] if i < len(names) else i} ({int(counts[i])})" for i in short[:5])
        listed += ", …" if len(short) > 5 else ""
        raise RequestError(f"{at}, but these classes have fewer training samples: {listed}")
