"""Texts with labels from a CSV file."""

from __future__ import annotations

from bigopt.data import assemble, check_labels, refuse_empty, split_indices
from bigopt.data.table import read_table
from bigopt.vocabulary.data import Data, Schema, TensorSplit
from bigopt.vocabulary.errors import RequestError


def text_csv(
    *,
    path: str,
    text: str = "text",
    label: str = "label",
    tokenizer: str | None = None,
    vocab_size: int = 8000,
    max_length: int = 128,
    separator: str = ",",
    seed: int = 0,
    val: float = 0.1,
    test: float = 0.1,
    labels_per_class: int | None = None,
    unlabelled: bool = False,
    limit: int | None = None,
) -> Data:
    r"""Text classification from a CSV file with a header.

    Args:
        path: the file.
        text: the column with the text.
        label: the column with the class.
        tokenizer: local folder of a pretrained tokenizer, or the name of an installed package that holds one; null
            trains a small one on the training split.
        vocab_size: tokens of the small tokenizer at most.
        max_length: longer texts are cut, tokens.
        separator: between fields; ``\t`` for a tab.
        seed: of the splits.
        val: share of the samples for validation.
        test: share for testing.
        labels_per_class: labelled training samples kept of each class; null keeps all.
        unlabelled: also hand on the training samples that lost their label.
        limit: use only so many training samples.

    Raises:
        RequestError: the file is missing or wrong somewhere (says the line), or an argument is.
    """
    import torch

    from bigopt.data.text import encode

    table = read_table(path, separator)
    labels, names = table.classes(label, "dataset.label")
    y = torch.tensor(labels)
    check_labels(y, names, f"{table.path}, column {label!r}")
    texts = table.need(text, "dataset.text")
    for row, value in enumerate(texts):
        if not value.strip():
            raise RequestError(f"{table.where(row, text)}: the text is empty")
    parts = split_indices(y, val, test, seed)
    refuse_empty(parts, val, test, str(table.path))
    tokens = encode(
        texts,
        parts[0].tolist(),
        folder=tokenizer,
        max_length=max_length,
        vocab_size=vocab_size,
    )
    length = tokens.ids.shape[1]
    train, validation, tested = (TensorSplit(tokens.ids[rows], y[rows]) for rows in parts)
    return assemble(
        "text_csv",
        Schema(
            "classification",
            "text",
            (length,),
            len(names),
            names,
            vocab_size=tokens.vocab_size,
            pad_id=tokens.pad_id,
        ),
        train,
        validation,
        tested,
        seed=seed,
        labels_per_class=labels_per_class,
        unlabelled=unlabelled,
        limit=limit,
        arguments={"val": val, "test": test, "vocab_size": tokens.vocab_size},
        notes=(f"{tokens.cut} of {len(table)} texts were cut to {length} tokens",) if tokens.cut else (),
        details={"tokenizer": tokens.tokenizer},
    )
