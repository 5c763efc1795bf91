"""Comparing the tensors that a model has with those that a file holds."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Size, Tensor

SHOWN = 5
"""Names of each sort that a message lists; the rest are counted."""

Fits = Callable[[Size, Size], bool]
Sizes = dict[str, dict[str, Any]]
"""Whole numbers, and tuples of them, among the attributes of modules, by the modules' names."""


@dataclass(frozen=True)
class Difference:
    """Where the names or shapes of two sets of tensors disagree.

    Attributes:
        missing: names that only the model has.
        unexpected: names that only the file has.
        mismatched: names whose shapes do not fit, with the file's and the model's shape.
    """

    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    mismatched: tuple[tuple[str, tuple[int, ...], tuple[int, ...]], ...]

    def __bool__(self) -> bool:
        return bool(self.missing or self.unexpected or self.mismatched)

    def lines(self) -> list[str]:
        """One line a sort, with the number of names and the first few of them."""
        shapes = [f"{name} is {list(given)}, the model's {list(wanted)}" for name, given, wanted in self.mismatched]
        sorts = {"missing": self.missing, "unexpected": self.unexpected, "mismatched": shapes}
        return [f"{len(names)} {sort}: {_first(names)}" for sort, names in sorts.items() if names]

    def without(self, names: Sequence[str]) -> Difference:
        """The same, some names left out."""
        return Difference(
            tuple(name for name in self.missing if name not in names),
            tuple(name for name in self.unexpected if name not in names),
            tuple(row for row in self.mismatched if row[0] not in names),
        )


def equal(given: Size, wanted: Size) -> bool:
    """Whether a tensor of the file has the model's shape."""
    return given == wanted


def smaller(given: Size, wanted: Size) -> bool:
    """Whether a tensor of the file can be the model's after something was removed from it."""
    return len(given) == len(wanted) and all(a <= b for a, b in zip(given, wanted, strict=True))


def compare(model: Mapping[str, Tensor], file: Mapping[str, Tensor], fits: Fits = equal) -> Difference:
    """The difference between a model's tensors and a file's.

    Args:
        model: the model's state dict.
        file: the file's tensors, under the model's names.
        fits: which shapes agree.
    """
    return Difference(
        missing=tuple(name for name in model if name not in file),
        unexpected=tuple(name for name in file if name not in model),
        mismatched=tuple(
            (name, tuple(file[name].shape), tuple(tensor.shape))
            for name, tensor in model.items()
            if name in file and not fits(file[name].shape, tensor.shape)
        ),
    )


def _first(names: Sequence[str]) -> str:
    rest = len(names) - SHOWN
    return ", ".join(names[:SHOWN]) + (f", … and {rest} more" if rest > 0 else "")
