"""Tables from CSV files: classification and regression on numeric and categorical columns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from bigopt.data import assemble, check_labels, refuse_empty, split_indices
from bigopt.data.table import Table, as_number, read_table
from bigopt.vocabulary.data import Data, Schema, TensorSplit
from bigopt.vocabulary.errors import RequestError

if TYPE_CHECKING:
    from torch import Tensor


def csv(
    *,
    path: str,
    target: str,
    task: Literal["classification", "regression"] = "classification",
    categorical: tuple[str, ...] = (),
    drop: tuple[str, ...] = (),
    separator: str = ",",
    max_categories: int = 100,
    seed: int = 0,
    val: float = 0.2,
    test: float = 0.2,
    labels_per_class: int | None = None,
    unlabelled: bool = False,
    limit: int | None = None,
) -> Data:
    r"""A CSV file with a header; every column but the target is an input.

    A column is numeric if most of its values are numbers, else categorical: one input per category that occurs in the
    training split (an unknown one elsewhere is all zeros). Missing values are refused, with their line.

    Args:
        path: the file.
        target: the column to predict; for regression several, separated by commas.
        task: classification or regression.
        categorical: columns that hold categories though they look like numbers.
        drop: columns to leave out.
        separator: between fields; ``\t`` for a tab.
        max_categories: more categories than this in a column are refused (names, free text).
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

    table = read_table(path, separator)
    targets = _targets(table, target, task)
    inputs = _inputs(table, targets, categorical, drop)
    y, names = _labels(table, targets[0]) if task == "classification" else (_values(table, targets), ())
    parts = split_indices(y, val, test, seed, stratify=task == "classification")
    refuse_empty(parts, val, test, str(table.path))
    encoders = [_Column(name, table, name in categorical, max_categories) for name in inputs]
    notes = [note for encoder in encoders for note in encoder.fit(parts[0])]
    x = torch.cat([encoder.encode() for encoder in encoders], dim=1)
    train, validation, tested = (TensorSplit(x[rows], y[rows]) for rows in parts)
    return assemble(
        "csv",
        Schema(task, "tabular", (x.shape[1],), len(names) or len(targets), names),
        train,
        validation,
        tested,
        seed=seed,
        labels_per_class=labels_per_class,
        unlabelled=unlabelled,
        limit=limit,
        arguments={"val": val, "test": test, "target": target, "task": task},
        notes=notes,
        details={"columns": [name for encoder in encoders for name in encoder.names], "targets": targets},
    )


@dataclass
class _Column:
    """One input column: a number, or one input per category."""

    name: str
    table: Table
    forced: bool
    most: int
    categories: list[str] | None = None
    names: list[str] = field(default_factory=list)

    def fit(self, train: Tensor) -> list[str]:
        """Learns the categories from the training rows; returns notes."""
        values = self.table.columns[self.name]
        self.table.refuse_missing(self.name)
        if not self.forced and sum(as_number(value) is not None for value in values) * 2 > len(values):
            self.names = [self.name]
            return []
        self.categories = sorted({values[row].strip() for row in train.tolist()})
        if len(self.categories) > self.most:
            raise RequestError(
                f"{self.table.path}, column {self.name!r}: {len(self.categories)} categories, more than "
                f"dataset.max_categories={self.most}: name it in dataset.drop, or raise the limit"
            )
        self.names = [f"{self.name}={category}" for category in self.categories]
        unknown = {value.strip() for value in values} - set(self.categories)
        return [f"column {self.name!r}: {len(unknown)} categories do not occur in training"] if unknown else []

    def encode(self) -> Tensor:
        """Inputs ``(N, 1)`` or ``(N, categories)``."""
        import torch
        from torch.nn import functional

        if self.categories is None:
            hint = " (name the column in dataset.categorical if it holds categories)"
            return torch.tensor(self.table.numbers(self.name, hint)).unsqueeze(1)
        # Unknown categories are one more column, which is cut off.
        place = {category: i for i, category in enumerate(self.categories)}
        codes = [place.get(value.strip(), len(place)) for value in self.table.columns[self.name]]
        return functional.one_hot(torch.tensor(codes), len(place) + 1)[:, :-1].float()


def _targets(table: Table, target: str, task: str) -> list[str]:
    if target in table.columns or task == "classification":
        table.need(target, "dataset.target")
        return [target]
    names = [name.strip() for name in target.split(",")]
    for name in names:
        table.need(name, "dataset.target")
    return names


def _inputs(table: Table, targets: Sequence[str], categorical: Sequence[str], drop: Sequence[str]) -> list[str]:
    for key, names in (("dataset.categorical", categorical), ("dataset.drop", drop)):
        for name in names:
            table.need(name, key)
    inputs = [name for name in table.columns if name not in targets and name not in drop]
    if not inputs:
        raise RequestError(f"{table.path}: no columns are left as inputs beside the target {', '.join(targets)!r}")
    return inputs


def _labels(table: Table, target: str) -> tuple[Tensor, tuple[str, ...]]:
    import torch

    labels, names = table.classes(target, "dataset.target")
    if len(names) * 2 > len(table) and all(as_number(name) is not None for name in names):
        raise RequestError(
            f"{table.path}, column {target!r}: {len(names)} different numbers in {len(table)} rows are no classes: "
            "set dataset.task=regression"
        )
    y = torch.tensor(labels)
    check_labels(y, names, f"{table.path}, column {target!r}")
    return y, names


def _values(table: Table, targets: Sequence[str]) -> Tensor:
    import torch

    hint = " (for classes set dataset.task=classification)"
    return torch.tensor([table.numbers(name, hint) for name in targets], dtype=torch.float32).T.contiguous()
