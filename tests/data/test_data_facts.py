"""Normalisation, resizing, checks and file messages."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.nn import functional

from bigopt.data import (
    StreamSplit,
    assemble,
    check_data,
    check_kind,
    check_labels,
    fit_normalization,
    hide_labels,
    resize_for,
)
from bigopt.data.files import data_folders, inside, need_file, need_folder
from bigopt.vocabulary.data import Data, Schema, TensorSplit
from bigopt.vocabulary.errors import RequestError


def images(n: int, size: int = 8, seed: int = 0) -> TensorSplit:
    x = torch.randint(0, 256, (n, 3, size, size), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)
    return TensorSplit(x, torch.arange(n) % 2)


def data(size: int = 8, **changes: object) -> Data:
    schema = Schema("classification", "image", (3, size, size), 2, ("a", "b"))
    made = assemble("toy", schema, images(20, size), images(6, size, 1), images(6, size, 2), seed=0)
    return replace(made, **changes)  # type: ignore[arg-type]


def test_bytes_and_floats_have_the_same_normalisation() -> None:
    split = images(50)
    split.x[:, 1] = 7  # a channel that never changes
    as_floats = TensorSplit(split.take(torch.arange(50)), split.y)
    streamed = StreamSplit(lambda i: split.x[i], split.y)
    expected = as_floats.x.double().movedim(1, 0).flatten(1)
    for source in (split, as_floats, streamed):
        mean, std = fit_normalization(source, "image")
        assert mean is not None and std is not None
        assert torch.allclose(mean.double(), expected.mean(1), atol=1e-7)
        assert torch.allclose(std[[0, 2]].double(), expected.std(1, correction=0)[[0, 2]], atol=1e-7)
        assert std[1] == 1.0


def test_normalisation_keeps_its_digits_far_from_zero() -> None:
    x = torch.tensor([[1e6, 0.0], [1e6 + 1, 0.0], [1e6 + 2, 0.0]])
    mean, std = fit_normalization(TensorSplit(x, torch.zeros(3)), "tabular")
    assert mean is not None and std is not None
    assert mean.tolist() == pytest.approx([1e6 + 1, 0.0])
    assert std.tolist() == pytest.approx([(2 / 3) ** 0.5, 1.0])
    assert fit_normalization(TensorSplit(x.long(), torch.zeros(3)), "text") == (None, None)


def test_only_training_samples_are_fitted_on() -> None:
    schema = Schema("classification", "image", (3, 8, 8), 2, ("a", "b"))
    bright = TensorSplit(torch.full((6, 3, 8, 8), 255, dtype=torch.uint8), torch.arange(6) % 2)
    assert torch.equal(assemble("toy", schema, images(20), bright, bright, seed=0).mean, data().mean)  # type: ignore[arg-type]


def test_resize_enlarges_every_split_once_and_says_so() -> None:
    small = data(unlabelled=hide_labels(images(4)))
    large = resize_for(small, 20)
    assert large.schema.shape == (3, 20, 20)
    assert "enlarged from 8×8 to 20×20" in large.notes[-1]
    assert large.fingerprint != small.fingerprint
    expected = functional.interpolate(small.train.take(torch.arange(20)), size=(20, 20), mode="bilinear")
    got = large.train.take(torch.arange(20))
    assert isinstance(large.train, TensorSplit) and large.train.x.dtype is torch.uint8
    assert (got - expected).abs().max() <= 0.5 / 255 + 1e-6
    mean, _ = fit_normalization(large.train, "image")
    assert torch.equal(large.mean, mean)  # type: ignore[arg-type]
    for split in (large.val, large.test, large.unlabelled):
        assert split is not None and split.take(torch.tensor([0])).shape == (1, 3, 20, 20)
    assert bool((large.unlabelled.y == -1).all())  # type: ignore[union-attr]
    check_data(large)
    assert resize_for(small, 8) is small
    assert resize_for(replace(small, test=None), 9).test is None


def test_resize_of_streams_and_of_what_would_not_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    small = data()
    kept = resize_for(small, 12).train.take(torch.tensor([3, 5]))
    streamed = StreamSplit(images(20).x.__getitem__, images(20).y)
    assert torch.equal(resize_for(replace(small, train=streamed), 12).train.take(torch.tensor([3, 5])), kept)
    monkeypatch.setattr("bigopt.data.resize._MEMORY", 0)
    lazy = resize_for(small, 12)
    assert (lazy.train.take(torch.tensor([3, 5])) - kept).abs().max() <= 0.5 / 255 + 1e-6
    assert lazy.train.x.shape[-1] == 8  # type: ignore[attr-defined]
    with pytest.raises(RequestError, match="tabular data, which cannot be resized"):
        resize_for(replace(small, schema=Schema("classification", "tabular", (3,), 2)), 12)


def floats(n: int, value: float | None = None) -> TensorSplit:
    x = torch.rand(n, 3, 8, 8)
    if value is not None:
        x[2, 1, 0, 0] = value
    return TensorSplit(x, torch.arange(n) % 2)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"val": TensorSplit(torch.zeros(0, 3, 8, 8), torch.zeros(0, dtype=torch.long))}, "val split: is empty"),
        ({"test": floats(6, float("nan"))}, r"test split: sample 2 holds a value that is not finite \(NaN"),
        ({"train": floats(6, float("inf"))}, "train split: sample 2 holds a value that is not finite"),
        ({"train": floats(6, 3.0)}, r"expected \[0, 1\]"),
        (
            {"train": TensorSplit(images(6).x, torch.tensor([0, 1, 2, 0, 1, 2]))},
            "label 2 of sample 2 is outside 0 to 1",
        ),
        ({"train": TensorSplit(images(6).x, torch.rand(6))}, "expected .N,. torch.int64"),
        ({"train": TensorSplit(images(6).x, torch.zeros(5).long())}, "6 inputs, but 5 labels"),
        ({"train": images(6, 9)}, r"shape \(3, 9, 9\), the schema says \(3, 8, 8\)"),
        ({"std": torch.tensor([1.0, 0.0, 1.0])}, "std holds"),
    ],
)
def test_data_that_break_their_schema(changes: dict[str, object], says: str) -> None:
    with pytest.raises(RequestError, match=says):
        check_data(data(**changes))


def test_all_problems_are_reported_together() -> None:
    with pytest.raises(RequestError) as error:
        check_data(data(train=floats(6, float("nan")), val=images(6, 9)))
    assert len(error.value.problems) == 2


def test_text_and_regression_are_checked() -> None:
    schema = Schema("classification", "text", (2,), 2, ("a", "b"), vocab_size=5)
    good = TensorSplit(torch.tensor([[1, 4]] * 4), torch.arange(4) % 2)
    check_data(Data("toy", schema, good, good, good))
    bad = TensorSplit(torch.tensor([[1, 5]] * 4), torch.arange(4) % 2)
    with pytest.raises(RequestError, match="token id 5 is outside the vocabulary of 5"):
        check_data(Data("toy", schema, good, bad, good))
    regression = Schema("regression", "tabular", (2,), 1)
    targets = torch.tensor([[0.0], [float("nan")]])
    with pytest.raises(RequestError, match="target of sample 1 is not finite"):
        check_data(Data("toy", regression, *[TensorSplit(torch.zeros(2, 2), targets)] * 3))


def test_a_label_with_one_sample() -> None:
    with pytest.raises(RequestError, match="this label has one sample only, .*: 'b'"):
        check_labels(torch.tensor([0, 0, 1]), ("a", "b"))
    with pytest.raises(RequestError, match="these labels have"):
        check_labels(torch.tensor([0, 2, 1]), ("a", "b"))
    with pytest.raises(RequestError, match="every sample has the label 'a'"):
        check_labels(torch.tensor([0, 0]), ("a", "b"))
    schema = Schema("classification", "tabular", (1,), 3, ("a", "b", "c"))
    train = TensorSplit(torch.zeros(3, 1), torch.tensor([0, 1, 2]))
    rest = TensorSplit(torch.zeros(4, 1), torch.tensor([0, 1, 0, 1]))
    with pytest.raises(RequestError, match="the label 'c' has one sample only"):
        check_data(Data("toy", schema, train, rest, rest))


def test_a_model_of_another_kind() -> None:
    schema = Schema("classification", "text", (8,), 2)
    with pytest.raises(RequestError, match="model.name: 'resnet' takes image data, but the dataset holds text data"):
        check_kind(schema, ("image",), "resnet")
    check_kind(schema, ("image", "text"), "any")
    check_kind(schema, (), "any")


def test_missing_paths_offer_what_is_near(tmp_path: Path) -> None:
    (tmp_path / "flowers").mkdir()
    with pytest.raises(RequestError, match=r"dataset.root: the folder .*flower does not exist; nearest: flowers"):
        need_folder(tmp_path / "flower", "dataset.root")
    with pytest.raises(RequestError, match="flowers is not a file"):
        need_file(tmp_path / "flowers", "dataset.path")
    for odd in ("", "a\0b", "x" * 5000, "~nobody-of-that-name/x"):
        with pytest.raises(RequestError, match="dataset.path"):
            need_file(odd, "dataset.path")
    (tmp_path / "flowers" / "out").symlink_to("/")
    with pytest.raises(RequestError, match="leads out of"):
        inside(tmp_path / "flowers", tmp_path / "flowers" / "out", "dataset.root")


def test_data_are_looked_for_where_the_environment_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("BIGOPT_DATA", str(tmp_path))
    monkeypatch.setenv("XDG_DATA_HOME", "/home/data")
    monkeypatch.setenv("XDG_DATA_DIRS", "/one:/usr/share")
    expected = [tmp_path / "mnist", *(Path(base) / "datasets/mnist" for base in ("/home/data", "/one", "/usr/share"))]
    assert data_folders("mnist") == expected
