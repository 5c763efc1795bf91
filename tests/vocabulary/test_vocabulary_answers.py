"""Answers of a fixed model: asked once for each fixed sample, every time for changed ones."""

from __future__ import annotations

import pytest
import torch

from bigopt.vocabulary import answers as module
from bigopt.vocabulary.answers import Answers
from bigopt.vocabulary.batch import Batch
from bigopt.vocabulary.data import TensorSplit

SPLIT = TensorSplit(torch.arange(12.0).reshape(6, 2), torch.zeros(6, dtype=torch.int64))


class Asked:
    """Doubles; counts the rows that it was asked about."""

    def __init__(self) -> None:
        self.rows = 0

    def __call__(self, x):
        self.rows += len(x)
        return {"logits": 2 * x, "norm": x.norm(dim=1)}


def batch(*index: int, split: TensorSplit = SPLIT) -> Batch:
    rows = torch.tensor(index)
    return Batch(split.take(rows), None, rows).from_(split)


def test_every_sample_is_asked_about_once():
    kept, asked = Answers(), Asked()
    for index in ((0, 1), (1, 2), (2, 0), (5, 4)):
        got, one = kept.get(batch(*index), asked), batch(*index)
        assert torch.equal(got["logits"], 2 * one.x) and torch.equal(got["norm"], one.x.norm(dim=1))
    assert (asked.rows, kept.hits) == (5, 1)


def test_copies_are_samples_of_their_own():
    kept, asked = Answers(), Asked()
    for copy in ([0, 1], [1, 1], [0, 0], [1, 0]):
        one = batch(3, 4)
        number = torch.tensor(copy)
        one = one.with_(x=one.x + 100 * number[:, None]).from_(SPLIT, number, 2)
        assert torch.equal(kept.get(one, asked)["logits"], 2 * one.x)
    assert (asked.rows, kept.hits) == (4, 1)


@pytest.mark.parametrize("how", ["new", "inplace", "nobody"])
def test_changed_rows_and_rows_of_no_source_are_computed(how):
    kept, asked = Answers(), Asked()
    kept.get(batch(0, 1), asked)
    one = batch(0, 1)
    if how == "new":
        one = one.with_(x=one.x + 1)
    elif how == "inplace":
        one.x.add_(1)
    else:
        one = Batch(one.x + 1, None, one.index)
    assert torch.equal(kept.get(one, asked)["logits"], 2 * one.x) and kept.hits == 0


def test_another_split_starts_anew():
    kept, asked = Answers(), Asked()
    other = TensorSplit(-SPLIT.x, SPLIT.y)
    for split in (SPLIT, other, SPLIT):
        one = batch(0, 1, split=split)
        assert torch.equal(kept.get(one, asked)["logits"], 2 * one.x)
    assert asked.rows == 6


def test_what_is_too_large_is_computed_every_time(monkeypatch):
    monkeypatch.setattr(module, "LIMIT", 6 * 3 * 4 - 1)
    kept, asked = Answers(), Asked()
    for _ in range(2):
        assert torch.equal(kept.get(batch(0, 1), asked)["logits"], 2 * SPLIT.x[:2])
    assert kept.hits == 0 and asked.rows >= 4
