"""Splits are disjoint, complete, stratified and repeatable."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bigopt.data import divide, split_indices
from bigopt.vocabulary.data import TensorSplit
from bigopt.vocabulary.errors import RequestError

SHARES = st.sampled_from([0.0, 0.05, 0.1, 0.2, 1 / 3, 0.45])


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(2, 60), min_size=1, max_size=12), SHARES, SHARES, st.integers(0, 2**31), st.booleans())
def test_disjoint_complete_and_stratified(sizes: list[int], val: float, test: float, seed: int, stratify: bool) -> None:
    y = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
    y = y[torch.randperm(len(y), generator=torch.Generator().manual_seed(seed))]
    train, validation, tested = split_indices(y, val, test, seed, stratify)
    assert torch.equal(torch.cat([train, validation, tested]).sort().values, torch.arange(len(y)))
    if not stratify:
        assert len(tested) == math.ceil(len(y) * test - 1e-6)
        assert len(validation) == min(math.ceil(len(y) * val - 1e-6), len(y) - len(tested))
        return
    for label, size in enumerate(sizes):
        assert (y[train] == label).sum() >= 1
        # Within one sample of the class's share of the rounded-up whole, unless training would lose its last sample.
        for rows, share in ((tested, test), (validation, val)):
            taken = int((y[rows] == label).sum())
            quota = size * math.ceil(len(y) * share - 1e-6) / len(y)
            assert taken <= math.floor(quota + 1e-9) + 1
            if int((y[train] == label).sum()) > 1:
                assert taken > quota - 1
    again = split_indices(y, val, test, seed, stratify)
    assert all(torch.equal(a, b) for a, b in zip((train, validation, tested), again, strict=True))


def test_digits_sized_split_has_the_documented_counts_and_seeds_differ() -> None:
    y = torch.arange(1797) % 10
    train, validation, tested = split_indices(y, 0.2, 0.2, 0)
    assert (len(train), len(validation), len(tested)) == (1077, 360, 360)
    assert not torch.equal(tested, split_indices(y, 0.2, 0.2, 1)[2])
    # The training part does not follow from another split's seed alone: val and test do not overlap for any seed.
    for seed in range(5):
        parts = split_indices(y, 0.1, 0.3, seed)
        assert len(set(parts[1].tolist()) & set(parts[2].tolist())) == 0


@pytest.mark.parametrize(
    ("val", "test", "says"), [(-0.1, 0, "dataset.val"), (0.1, 1.0, "dataset.test"), (0.6, 0.4, "sum")]
)
def test_shares_out_of_range(val: float, test: float, says: str) -> None:
    with pytest.raises(RequestError, match=says):
        split_indices(torch.arange(10) % 2, val, test, 0)


def test_divide_refuses_an_empty_split_and_names_it() -> None:
    pool = TensorSplit(torch.zeros(20, 3), torch.arange(20) % 2)
    with pytest.raises(RequestError, match="val split of 20 samples is empty") as error:
        divide(pool, 0.0, 0.0, 0)
    assert len(error.value.problems) == 2
    train, val, test = divide(pool, 0.2, 0.2, 0)
    assert (len(train), len(val), len(test)) == (12, 4, 4)
