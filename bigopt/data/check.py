"""What every dataset must keep to, whoever wrote its plugin."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from bigopt.data.labels import has_labels
from bigopt.vocabulary.data import Data, Schema, Split, TensorSplit
from bigopt.vocabulary.errors import RequestError

_CHUNK = 65536


def check_labels(y: Tensor, class_names: Sequence[str] = (), where: str = "dataset") -> None:
    """Checks the labels of a whole classification set before it is split.

    Args:
        y: labels ``(N,)`` int64.
        class_names: names in label order.
        where: how the message begins: the configuration's key or the file.

    Raises:
        RequestError: no samples, fewer than two classes, or a label with a single sample.
    """
    if len(y) == 0:
        raise RequestError(f"{where}: there are no samples")
    labels, counts = y.unique(return_counts=True)
    if len(labels) < 2:
        raise RequestError(
            f"{where}: every sample has the label {_name(int(labels[0]), class_names)!r}, need two labels"
        )
    single = [_name(int(label), class_names) for label in labels[counts == 1]]
    if single:
        listed = ", ".join(repr(name) for name in single[:5]) + (", …" if len(single) > 5 else "")
        plural = "these labels have" if len(single) > 1 else "this label has"
        raise RequestError(f"{where}: {plural} one sample only, which cannot be split: {listed}")


def check_data(data: Data) -> None:
    """Checks splits against their schema.

    Raises:
        RequestError: an empty split, values that are not finite, labels out of range or with a single sample, wrong
            shapes or types; all problems together.
    """
    problems: list[str] = []
    for name, split in (("train", data.train), ("val", data.val), ("test", data.test), ("unlabelled", data.unlabelled)):
        if split is not None:
            problems += [f"dataset {data.name}: {name} split: {problem}" for problem in _problems(split, data.schema)]
    if data.std is not None and not bool((data.std > 0).all()):
        problems.append(f"dataset {data.name}: std holds a value that is not above 0")
    if not problems and data.schema.task == "classification":
        problems += _single(data)
    if problems:
        raise RequestError(problems)


def check_kind(schema: Schema, kinds: Sequence[str], model_name: str) -> None:
    """Checks that a model takes this kind of data.

    Args:
        schema: of the dataset.
        kinds: what the model takes; empty means anything.
        model_name: for the message.

    Raises:
        RequestError: it does not.
    """
    if kinds and schema.kind not in kinds:
        takes = " or ".join(kinds)
        raise RequestError(f"model.name: {model_name!r} takes {takes} data, but the dataset holds {schema.kind} data")


def _problems(split: Split, schema: Schema) -> list[str]:
    if len(split) == 0:
        return ["is empty"]
    found = []
    shape = tuple(split.take(torch.zeros(1, dtype=torch.long)).shape[1:])
    if shape != tuple(schema.shape):
        found.append(f"samples have shape {shape}, the schema says {tuple(schema.shape)}")
    if isinstance(split, TensorSplit):
        if len(split.x) != len(split.y):
            return [*found, f"{len(split.x)} inputs, but {len(split.y)} labels"]
        found += _input_problems(split.x, schema)
    return found + (_label_problems(split.y, schema) if has_labels(split) else [])


def _input_problems(x: Tensor, schema: Schema) -> list[str]:
    if schema.kind == "text":
        if x.dtype is not torch.int64:
            return [f"token ids are {x.dtype}, expected torch.int64"]
        low, high = int(x.min()), int(x.max())
        size = schema.vocab_size or 0
        return [f"token id {high if high >= size else low} is outside the vocabulary of {size}"] * (
            low < 0 or high >= size
        )
    if x.dtype is torch.uint8 and schema.kind == "image":
        return []
    if x.dtype is not torch.float32:
        return [f"inputs are {x.dtype}, expected torch.float32"]
    for start, rows in zip(range(0, len(x), _CHUNK), x.split(_CHUNK), strict=True):
        bad = ~rows.flatten(1).isfinite().all(1)
        if bool(bad.any()):
            return [f"sample {start + int(bad.nonzero()[0])} holds a value that is not finite (NaN or infinite)"]
    if schema.kind == "image" and (float(x.min()) < 0 or float(x.max()) > 1):
        return [f"image values lie in [{float(x.min()):g}, {float(x.max()):g}], expected [0, 1]"]
    return []


def _label_problems(y: Tensor, schema: Schema) -> list[str]:
    if schema.task == "regression":
        if not y.is_floating_point() or y.ndim != 2 or y.shape[1] != schema.num_classes:
            return [f"targets are {tuple(y.shape)} {y.dtype}, expected (N, {schema.num_classes}) float"]
        bad = ~y.isfinite().all(1)
        return [f"target of sample {int(bad.nonzero()[0])} is not finite (NaN or infinite)"] if bool(bad.any()) else []
    if y.dtype is not torch.int64 or y.ndim != 1:
        return [f"labels are {tuple(y.shape)} {y.dtype}, expected (N,) torch.int64"]
    bad = (y < 0) | (y >= schema.num_classes)
    if bool(bad.any()):
        at = int(bad.nonzero()[0])
        return [f"label {int(y[at])} of sample {at} is outside 0 to {schema.num_classes - 1}"]
    return []


def _single(data: Data) -> list[str]:
    """A label that occurs once in all splits together; a training split of one label a class is fine."""
    known = [split.y for split in (data.train, data.val, data.test) if split is not None and has_labels(split)]
    if data.unlabelled is not None or not known:
        return []
    labels, counts = torch.cat(known).unique(return_counts=True)
    names = [_name(int(label), data.schema.class_names) for label in labels[counts == 1]]
    return [f"dataset {data.name}: the label {name!r} has one sample only" for name in names[:5]]


def _name(label: int, names: Sequence[str]) -> str:
    return names[label] if 0 <= label < len(names) else str(label)
