"""The batch iterator: order, resume, ranks, roles, streaming."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader, Dataset

from bigopt.data import StreamSplit, batch_count, batches, hide_labels
from bigopt.vocabulary.batch import Role
from bigopt.vocabulary.data import TensorSplit
from bigopt.vocabulary.errors import RequestError


class Squares:
    """Sample i is a uint8 image full of i; number 13 is unreadable if asked for."""

    def __init__(self, broken: bool = False) -> None:
        self.broken = broken

    def __call__(self, place: int) -> torch.Tensor:
        if self.broken and place == 13:
            raise RequestError("dataset.root: 13.png: damaged image")
        return torch.full((1, 2, 2), place, dtype=torch.uint8)


def memory(n: int) -> TensorSplit:
    return TensorSplit(
        torch.arange(n, dtype=torch.uint8).reshape(-1, 1, 1, 1).expand(-1, 1, 2, 2).clone(), torch.arange(n)
    )


def stream(n: int, broken: bool = False) -> StreamSplit:
    return StreamSplit(Squares(broken), torch.arange(n))


def test_one_epoch_visits_every_sample_once_with_its_label_and_index() -> None:
    seen = list(batches(memory(100), 32, seed=3, epoch=1))
    assert [len(batch.x) for batch in seen] == [32, 32, 32, 4]
    index = torch.cat([batch.index for batch in seen])
    assert torch.equal(index.sort().values, torch.arange(100))
    assert not torch.equal(index, torch.arange(100))
    for batch in seen:
        assert batch.y is not None and torch.equal(batch.y, batch.index)
        assert batch.x.dtype is torch.float32
        assert torch.allclose(batch.x[:, 0, 0, 0] * 255, batch.index.float())
        assert bool(batch.rows(Role.LABELLED).all())


def test_order_follows_from_seed_and_epoch_alone() -> None:
    def order(seed: int, epoch: int) -> list[int]:
        return [int(i) for batch in batches(memory(50), 7, seed=seed, epoch=epoch) for i in batch.index]

    assert order(0, 0) == order(0, 0)
    assert len({tuple(order(0, 0)), tuple(order(0, 1)), tuple(order(1, 0)), tuple(order(1, 1))}) == 4
    torch.manual_seed(123)
    before = torch.random.get_rng_state()
    order(0, 0)
    assert torch.equal(before, torch.random.get_rng_state())  # dropout's random numbers are not consumed


@pytest.mark.parametrize("start", [0, 1, 3])
def test_start_goes_on_where_an_epoch_was_left(start: int) -> None:
    for split in (memory(50), stream(50)):
        whole = list(batches(split, 16, seed=5, epoch=2))
        rest = list(batches(split, 16, seed=5, epoch=2, start=start))
        assert len(rest) == len(whole) - start
        for a, b in zip(whole[start:], rest, strict=True):
            assert torch.equal(a.x, b.x) and torch.equal(a.index, b.index)


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 120), st.integers(1, 40), st.integers(1, 5), st.booleans())
def test_ranks_have_equal_batches_and_cover_the_split(n: int, size: int, world: int, drop_last: bool) -> None:
    options = {"seed": 1, "drop_last": drop_last, "world_size": world}
    ranks = [list(batches(memory(n), size, rank=rank, **options)) for rank in range(world)]  # type: ignore[arg-type]
    shapes = {tuple(len(batch.index) for batch in rank) for rank in ranks}
    assert len(shapes) == 1
    assert len(ranks[0]) == batch_count(n, size, drop_last=drop_last, world_size=world) >= 1
    index = torch.cat([batch.index for rank in ranks for batch in rank])
    if drop_last and n >= size * world:
        assert set(shapes.pop()) == {size}
        assert len(index.unique()) == len(index)  # nothing is repeated when the rest is dropped
    elif not drop_last:
        assert set(index.tolist()) == set(range(n))
        assert len(index) - n < world


def test_indices_restrict_and_keep_counting_in_the_split() -> None:
    chosen = torch.tensor([3, 30, 9, 11])
    seen = torch.cat([batch.index for batch in batches(memory(50), 3, chosen, seed=0)])
    assert sorted(seen.tolist()) == [3, 9, 11, 30]
    straight = torch.cat([batch.index for batch in batches(memory(50), 3, chosen, shuffle=False)])
    assert straight.tolist() == chosen.tolist()


def test_drop_last_keeps_a_single_short_batch() -> None:
    assert [len(batch.x) for batch in batches(memory(10), 4, drop_last=True)] == [4, 4]
    assert [len(batch.x) for batch in batches(memory(3), 4, drop_last=True)] == [3]
    with pytest.raises(ValueError, match="batch_size"):
        list(batches(memory(3), 0))


@pytest.mark.parametrize("workers", [0, 2])
def test_streaming_gives_what_memory_gives(workers: int) -> None:
    for kept, streamed in zip(
        batches(memory(40), 16, seed=2, epoch=3), batches(stream(40), 16, seed=2, epoch=3, workers=workers), strict=True
    ):
        assert torch.equal(kept.x, streamed.x)
        assert torch.equal(kept.index, streamed.index)
        assert kept.y is not None and streamed.y is not None and torch.equal(kept.y, streamed.y)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_damaged_file_is_one_line_also_from_a_worker(workers: int) -> None:
    with pytest.raises(RequestError) as error:
        list(batches(stream(40, broken=True), 16, workers=workers))
    assert error.value.problems == ("dataset.root: 13.png: damaged image",)


def test_rows_without_labels_say_so() -> None:
    (batch,) = batches(hide_labels(memory(5)), 8)
    assert batch.y is None
    assert bool(batch.rows(Role.UNLABELLED).all())


def test_batching_is_far_faster_than_reading_sample_by_sample() -> None:
    split = TensorSplit(torch.zeros(4096, 1, 28, 28, dtype=torch.uint8), torch.zeros(4096, dtype=torch.long))

    class Samples(Dataset[object]):
        def __len__(self) -> int:
            return 4096

        def __getitem__(self, i: int) -> object:
            return split.x[i].float() / 255, int(split.y[i])

    def seconds(loader: Callable[[], Iterable[object]]) -> float:
        best = float("inf")
        for _ in range(5):
            start = time.perf_counter()
            for _ in loader():
                pass
            best = min(best, time.perf_counter() - start)
        return best

    whole = seconds(lambda: batches(split, 128))
    single = seconds(lambda: DataLoader(Samples(), batch_size=128, shuffle=True))
    assert single / whole > 3
