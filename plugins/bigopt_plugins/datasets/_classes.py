"""Some of a dataset's classes, renumbered from 0: a task of its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from bigopt.vocabulary.data import TensorSplit
from bigopt.vocabulary.errors import RequestError

if TYPE_CHECKING:
    from torch import Tensor


def check_classes(classes: Sequence[int] | None, count: int) -> list[int]:
    """The chosen labels in the order given; all of them for None.

    Raises:
        RequestError: fewer than two, one twice, or a label that does not exist.
    """
    chosen = list(range(count)) if classes is None else list(classes)
    if len(chosen) < 2 or len(set(chosen)) < len(chosen) or not all(0 <= label < count for label in chosen):
        raise RequestError(
            f"dataset.classes: got {chosen}, expected two or more different labels from 0 to {count - 1}"
        )
    return chosen


def select_classes(split: TensorSplit, chosen: Sequence[int], count: int) -> TensorSplit:
    """The samples of the chosen classes, label ``chosen[i]`` renumbered to ``i``.

    Args:
        split: labels 0 to ``count - 1``.
        chosen: as :func:`check_classes` gives them.
        count: classes of the whole set.
    """
    import torch

    if list(chosen) == list(range(count)):
        return split
    place: Tensor = torch.full((count,), -1)
    place[torch.tensor(chosen)] = torch.arange(len(chosen))
    rows = (place[split.y] >= 0).nonzero().flatten()
    return TensorSplit(split.x[rows], place[split.y[rows]])
