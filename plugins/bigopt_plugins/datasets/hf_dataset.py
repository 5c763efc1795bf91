"""Datasets in the format of Hugging Face's ``datasets`` package, from a local folder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from bigopt.data import assemble, split_indices
from bigopt.data.files import need_folder
from bigopt.vocabulary.data import Data, Schema, TensorSplit
from bigopt.vocabulary.errors import RequestError

if TYPE_CHECKING:
    from torch import Tensor

_KEY = "dataset.path"
_SPLITS = {"train": ("train",), "val": ("validation", "val", "valid"), "test": ("test",)}


def hf_dataset(
    *,
    path: str,
    column: str | None = None,
    label: str = "label",
    size: int = 32,
    channels: int = 3,
    flips: bool = True,
    tokenizer: str | None = None,
    vocab_size: int = 8000,
    max_length: int = 128,
    seed: int = 0,
    val: float = 0.1,
    test: float = 0.1,
    labels_per_class: int | None = None,
    unlabelled: bool = False,
    limit: int | None = None,
) -> Data:
    """Image or text classification from what ``save_to_disk`` left (extra ``hf-datasets``); held in memory.

    Its own splits ``train``, ``validation`` and ``test`` are used where they exist; missing ones, or one without
    labels (all -1), are split off the training samples.

    Args:
        path: the folder.
        column: the column with the image or text; null takes the only image column, or else the only text column.
        label: the column with the class.
        size: height and width that images are scaled and cropped to, pixels.
        channels: of images: 1 (grey) or 3 (RGB).
        flips: whether a horizontally flipped image is still of its class.
        tokenizer: local folder of a pretrained tokenizer, or the name of an installed package that holds one; null
            trains a small one on the training split.
        vocab_size: tokens of the small tokenizer at most.
        max_length: longer texts are cut, tokens.
        seed: of the splits.
        val: share of the samples for validation, where there is no such split.
        test: share for testing, where there is no such split.
        labels_per_class: labelled training samples kept of each class; null keeps all.
        unlabelled: also hand on the training samples that lost their label.
        limit: use only so many training samples.

    Raises:
        RequestError: the package or the data are missing, a column is, or an argument is out of range.
    """
    if channels not in (1, 3) or size < 1:
        raise RequestError(f"dataset.channels, dataset.size: got {channels} and {size}, expected 1 or 3, and 1 or more")
    from bigopt_plugins.datasets._hf_columns import images_column, input_column, labels_column, texts_column

    folder = need_folder(path, _KEY)
    tables = _load(folder)
    column, kind = input_column(tables["train"], column, label, folder)
    labels, names = labels_column(tables, label, folder)
    rows = _divide(labels, val, test, seed)
    inputs: dict[str, Any] = {}
    if kind == "image":
        images = {name: images_column(table, column, size, channels, name) for name, table in tables.items()}
        schema = Schema("classification", "image", (channels, size, size), len(names), names, flips=flips)
        inputs = images
        details: dict[str, Any] = {}
    else:
        options: dict[str, Any] = {"vocab_size": vocab_size, "max_length": max_length}
        inputs, schema, details = texts_column(tables, column, rows, names, folder=tokenizer, **options)
    splits = {name: TensorSplit(inputs[home][index], labels[home][index]) for name, (home, index) in rows.items()}
    return assemble(
        "hf_dataset",
        schema,
        splits["train"],
        splits["val"],
        splits["test"],
        seed=seed,
        labels_per_class=labels_per_class,
        unlabelled=unlabelled,
        limit=limit,
        arguments={"val": val, "test": test, "column": column, "label": label},
        details=details,
    )


def _load(folder: Path) -> dict[str, Any]:
    """The stored splits, by our names."""
    try:
        from datasets import Dataset, load_from_disk
    except ImportError as error:
        raise RequestError(
            "dataset.name: 'hf_dataset' needs the package 'datasets', which is not installed: "
            "pip install 'bigopt[hf-datasets]'"
        ) from error
    try:
        found = load_from_disk(str(folder))
    except Exception as error:  # the package raises anything on damaged files
        line = " ".join(str(error).split())[:200]
        raise RequestError(f"{_KEY}: {folder} cannot be read as a saved dataset ({line})") from error
    if isinstance(found, Dataset):
        return {"train": found}
    tables = {
        ours: next(found[name] for name in theirs if name in found)
        for ours, theirs in _SPLITS.items()
        if any(name in found for name in theirs)
    }
    if "train" not in tables:
        raise RequestError(f"{_KEY}: {folder} has no split 'train' (it has: {', '.join(found)})")
    return tables


def _divide(labels: dict[str, Tensor], val: float, test: float, seed: int) -> dict[str, tuple[str, Tensor]]:
    """For each split, the stored split that it comes from and the rows there."""
    import torch

    shares = (0.0 if "val" in labels else val, 0.0 if "test" in labels else test)
    train, held, out = split_indices(labels["train"], *shares, seed)
    cut = {"train": ("train", train), "val": ("train", held), "test": ("train", out)}
    return cut | {name: (name, torch.arange(len(y))) for name, y in labels.items() if name != "train"}
