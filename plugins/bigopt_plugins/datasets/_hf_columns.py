"""Columns of Hugging Face datasets as tensors: which holds the input, labels, images, texts."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from bigopt.data import check_labels
from bigopt.data.files import nearest
from bigopt.vocabulary.data import Schema
from bigopt.vocabulary.errors import RequestError

if TYPE_CHECKING:
    from torch import Tensor

_KEY = "dataset.path"


def input_column(table: Any, column: str | None, label: str, folder: Path) -> tuple[str, str]:
    """The input column's name, and whether it holds images or texts."""
    kinds = {name: _kind(feature) for name, feature in table.features.items() if name != label}
    if column is not None:
        if column not in table.features:
            raise RequestError(f"dataset.column: {folder} has no column {column!r}{nearest(column, table.features)}")
        kind = _kind(table.features[column])
        if kind is None:
            raise RequestError(
                f"dataset.column: {column!r} in {folder} holds {table.features[column]}, no images or text"
            )
        return column, kind
    for kind in ("image", "text"):
        found = [name for name, of in kinds.items() if of == kind]
        if len(found) == 1:
            return found[0], kind
        if found:
            raise RequestError(f"dataset.column: {folder} has several {kind} columns, name one: {', '.join(found)}")
    raise RequestError(f"{_KEY}: {folder} has no column of images or text (it has: {', '.join(table.features)})")


def _kind(feature: Any) -> str | None:
    if type(feature).__name__ == "Image":
        return "image"
    return "text" if getattr(feature, "dtype", None) in ("string", "large_string") else None


def labels_column(tables: dict[str, Any], label: str, folder: Path) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """Labels of every stored split that has them, and the class names."""
    import torch

    features = tables["train"].features
    if label not in features:
        known = ", ".join(features)
        raise RequestError(
            f"dataset.label: {folder} has no column {label!r} (it has: {known}){nearest(label, features)}"
        )
    values = {name: list(table[label]) for name, table in tables.items()}
    for name, column in values.items():
        if None in column:
            raise RequestError(f"dataset.label: {folder}, {name} split, row {column.index(None)}: the label is missing")
    stored = getattr(features[label], "names", None)
    known_values = sorted({value for column in values.values() for value in column if value != -1})
    names = tuple(stored) if stored else tuple(str(value) for value in known_values)
    place = {value: i for i, value in enumerate(range(len(names)) if stored else known_values)}
    labels = {name: torch.tensor([place.get(value, -1) for value in column]) for name, column in values.items()}
    # Published test splits often come without labels; they cannot be tested on.
    kept = {name: y for name, y in labels.items() if name == "train" or bool((y >= 0).all())}
    check_labels(kept["train"], names, f"dataset.label: {folder}, train split")
    return kept, names


def images_column(table: Any, column: str, size: int, channels: int, split: str) -> Tensor:
    """All images of one stored split as uint8 ``(N, channels, size, size)``."""
    import torch
    from datasets import Image

    from bigopt.data.image import decode_image

    rows = []
    # Undecoded: the package would try every decoder that Pillow has, and open files and addresses that a row names.
    for i, stored in enumerate(table.cast_column(column, Image(decode=False))[column]):
        where = f"{_KEY}: {split} split, row {i}, column {column!r}"
        if not stored or not stored.get("bytes"):
            raise RequestError(f"{where}: the image is not stored in the dataset")
        rows.append(decode_image(stored["bytes"], size, channels, where))
    return torch.stack(rows)


def texts_column(
    tables: dict[str, Any],
    column: str,
    rows: dict[str, tuple[str, Tensor]],
    names: tuple[str, ...],
    **options: Any,
) -> tuple[dict[str, Tensor], Schema, dict[str, Any]]:
    """Token ids of every stored split, their schema and the tokenizer; options are those of ``encode``."""
    from bigopt.data.text import encode

    texts = {name: [value or "" for value in table[column]] for name, table in tables.items()}
    joined = [text for column_texts in texts.values() for text in column_texts]
    tokens = encode(joined, rows["train"][1].tolist(), **options)  # the training table comes first
    parts = tokens.ids.split([len(column_texts) for column_texts in texts.values()])
    schema = Schema(
        "classification",
        "text",
        (tokens.ids.shape[1],),
        len(names),
        names,
        vocab_size=tokens.vocab_size,
        pad_id=tokens.pad_id,
    )
    return dict(zip(texts, parts, strict=True)), schema, {"tokenizer": tokens.tokenizer}
