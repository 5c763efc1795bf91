"""From raw inputs and labels to a checked :class:`Data`: the path that every built-in dataset takes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from bigopt.data.check import check_data
from bigopt.data.fingerprint import fingerprint
from bigopt.data.labels import limit_labels, limit_samples
from bigopt.data.normalization import fit_normalization
from bigopt.data.split import refuse_empty, split_indices, subset
from bigopt.vocabulary.data import Data, Schema, Split


def divide(pool: Split, val: float, test: float, seed: int, stratify: bool = True) -> tuple[Split, Split, Split]:
    """Training, validation and test split of one pool of samples.

    Args:
        pool: all samples.
        val: share for validation.
        test: share for testing.
        seed: same seed, same splits.
        stratify: keep the classes' shares; False for regression.

    Raises:
        RequestError: a share out of range, or a split that would be empty.
    """
    parts = split_indices(pool.y, val, test, seed, stratify)
    refuse_empty(parts, val, test)
    train, validation, tested = (subset(pool, rows) for rows in parts)
    return train, validation, tested


def assemble(
    name: str,
    schema: Schema,
    train: Split,
    val: Split,
    test: Split,
    *,
    seed: int,
    labels_per_class: int | None = None,
    unlabelled: bool = False,
    limit: int | None = None,
    arguments: Mapping[str, Any] | None = None,
    notes: Sequence[str] = (),
    details: Mapping[str, Any] | None = None,
) -> Data:
    """Limits the training samples and labels, fits the normalisation, takes the fingerprint and checks everything.

    Args:
        name: the plugin's name.
        schema: of the samples.
        train: training split; the only one that is limited and fitted on.
        val: validation split.
        test: test split.
        seed: of every choice.
        labels_per_class: see :func:`~bigopt.data.labels.limit_labels`.
        unlabelled: whether training samples without labels are wanted too.
        limit: use only so many training samples.
        arguments: further values that determine the data, for the fingerprint.
        notes: what a reader of the report should know.
        details: what the plugin hands on.

    Raises:
        RequestError: impossible limits, or data that do not fit their schema.
    """
    told = list(notes)
    classes = schema.task == "classification"
    if limit is not None and limit < len(train):
        told.append(f"dataset.limit: {limit} of {len(train)} training samples are used")
    train = limit_samples(train, limit, seed, stratify=classes)
    available = len(train)
    train, rest = limit_labels(train, labels_per_class, unlabelled, seed, schema.class_names)
    if labels_per_class is not None:
        told.append(
            f"dataset.labels_per_class: {labels_per_class * len(schema.class_names)} of {available} training samples "
            f"keep their label; validation reads {len(val)} further labels"
        )
    known = {"name": name, "seed": seed, "labels_per_class": labels_per_class, "unlabelled": unlabelled, "limit": limit}
    # With every label kept, the unlabelled split repeats the training inputs.
    fitted = [train, rest] if rest is not None and rest is not train and labels_per_class is not None else [train]
    mean, std = fit_normalization([split for split in fitted if len(split)], schema.kind)
    data = Data(
        name=name,
        schema=schema,
        train=train,
        val=val,
        test=test,
        unlabelled=rest,
        mean=mean,
        std=std,
        fingerprint=fingerprint(
            {"train": train, "val": val, "test": test, "unlabelled": rest}, {**known, **(arguments or {})}
        ),
        notes=tuple(told),
        details=dict(details or {}),
    )
    check_data(data)
    return data
