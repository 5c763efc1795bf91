"""Bits per layer under a limit: worked out by hand, and never worse than one width for all."""

import itertools

import pytest
import torch

from bigopt.vocabulary.errors import RequestError
from bigopt_plugins.compression.quantization._mixed import Cost, assign

TABLE = {
    ("stem", 8): Cost(100, 0.0), ("stem", 4): Cost(50, 0.10), ("stem", 2): Cost(25, 0.50),
    ("body", 8): Cost(800, 0.0), ("body", 4): Cost(400, 0.02), ("body", 2): Cost(200, 0.03),
    ("head", 8): Cost(200, 0.0), ("head", 4): Cost(100, 0.01), ("head", 2): Cost(50, 0.04),
}  # fmt: skip


@pytest.mark.parametrize(
    ("limit", "bits"),
    [
        (1100, {"stem": 8, "body": 8, "head": 8}),
        # loss per byte: body to 2 bits 0.03/600 = 5e-5, body to 4 0.02/400 = 5e-5, head to 4 1e-4; the larger saving
        (500, {"stem": 8, "body": 2, "head": 8}),
        (400, {"stem": 8, "body": 2, "head": 4}),
        (350, {"stem": 8, "body": 2, "head": 2}),
        (300, {"stem": 4, "body": 2, "head": 2}),
        (275, {"stem": 2, "body": 2, "head": 2}),
    ],
)
def test_the_least_loss_for_the_bytes(limit, bits):
    result = assign(TABLE, max_bytes=limit)
    assert result.bits == bits
    assert result.bytes == sum(TABLE[item].bytes for item in bits.items()) <= limit
    assert result.loss == pytest.approx(sum(TABLE[item].loss for item in bits.items()))


def test_room_that_is_left_goes_where_it_helps_most():
    # 700 needs one step: body goes to 2 bits (500 in all); the 200 left widen it to 4 again
    result = assign(TABLE, max_bytes=700)
    assert result.steps == [("body", 2)]
    assert result.bits == {"stem": 8, "body": 4, "head": 8} and result.bytes == 700


@pytest.mark.parametrize(
    ("limit", "bits"),
    [
        (0.0, {"stem": 8, "body": 8, "head": 8}),
        (0.02, {"stem": 8, "body": 4, "head": 8}),
        (0.03, {"stem": 8, "body": 2, "head": 8}),
        (0.045, {"stem": 8, "body": 2, "head": 4}),
        (1.0, {"stem": 2, "body": 2, "head": 2}),
    ],
)
def test_the_most_bytes_for_the_drop(limit, bits):
    result = assign(TABLE, max_drop=limit)
    assert result.bits == bits and result.loss <= limit + 1e-9


def test_both_limits():
    assert assign(TABLE, max_bytes=400, max_drop=0.05).bits == {"stem": 8, "body": 2, "head": 4}
    with pytest.raises(RequestError, match=r"cannot be smaller than 350 bytes within max_drop 0\.1"):
        assign(TABLE, max_bytes=300, max_drop=0.1)


def test_impossible_and_missing_limits():
    with pytest.raises(RequestError, match="got 200, but the layers cannot be smaller than 275 bytes"):
        assign(TABLE, max_bytes=200)
    with pytest.raises(RequestError, match="max_bytes, max_drop or both"):
        assign(TABLE)


def test_layers_that_get_better_when_narrowed_go_first():
    table = {("a", 8): Cost(10, 0.0), ("a", 4): Cost(5, -0.1), ("b", 8): Cost(10, 0.0), ("b", 4): Cost(5, 0.1)}
    assert assign(table, max_drop=0.0).bits == {"a": 4, "b": 4}
    assert assign(table, max_bytes=15).bits == {"a": 4, "b": 8}


def test_close_to_the_best_of_all_assignments():
    """Against all of them, on random tables whose losses fall with the width."""
    generator = torch.Generator().manual_seed(0)
    widths, worse = (8, 4, 3, 2), []
    for _ in range(40):
        table = {}
        for layer in "abcde":
            size = int(torch.randint(8, 200, (), generator=generator)) * 8
            losses = torch.rand(3, generator=generator).cumsum(0) * float(torch.rand((), generator=generator))
            for width, loss in zip(widths, [0.0, *losses.tolist()], strict=True):
                table[layer, width] = Cost(size * width // 8, loss)
        limit = int(0.5 * sum(table[layer, 8].bytes for layer in "abcde"))
        possible = [
            sum(table[layer, width].loss for layer, width in zip("abcde", choice, strict=True))
            for choice in itertools.product(widths, repeat=5)
            if sum(table[layer, width].bytes for layer, width in zip("abcde", choice, strict=True)) <= limit
        ]
        result = assign(table, max_bytes=limit)
        uniform = sum(table[layer, 4].loss for layer in "abcde")
        assert result.bytes <= limit and result.loss <= uniform + 1e-9
        worse.append(result.loss - min(possible))
    assert sum(w < 1e-9 for w in worse) >= 20
    assert sum(worse) / len(worse) < 0.15
