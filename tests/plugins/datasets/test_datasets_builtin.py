"""digits and mnist5k: what they hold and how it was prepared."""

from __future__ import annotations

import pytest
import torch

from bigopt.vocabulary.errors import RequestError
from bigopt_plugins.datasets.digits import digits
from bigopt_plugins.datasets.mnist5k import mnist5k


def test_digits() -> None:
    data = digits()
    assert (len(data.train), len(data.val), len(data.test or [])) == (1077, 360, 360)
    assert data.schema.shape == (1, 8, 8) and data.schema.num_classes == 10 and not data.schema.flips
    x = data.train.take(torch.arange(1077))
    assert x.min() == 0 and x.max() == 1
    assert data.mean is not None and data.mean.item() == pytest.approx(x.mean().item(), abs=1e-6)
    assert data.fingerprint == digits().fingerprint
    assert data.fingerprint != digits(seed=1).fingerprint
    counts = data.val.y.bincount()
    assert int(counts.max() - counts.min()) <= 2


def test_digits_splits_share_no_image() -> None:
    data = digits(seed=4)
    rows = [split.take(torch.arange(len(split))).flatten(1) for split in (data.train, data.val, data.test)]  # type: ignore[arg-type]
    # scikit-learn's digits are all different, so that equal pixels would mean the same sample.
    assert len(torch.cat(rows).unique(dim=0)) == 1797


def test_few_label_digits() -> None:
    data = digits(labels_per_class=5, unlabelled=True)
    assert data.train.y.bincount().tolist() == [5] * 10
    assert data.unlabelled is not None and len(data.unlabelled) == 1077 - 50
    assert bool((data.unlabelled.y == -1).all())
    with pytest.raises(RequestError, match="labels_per_class: got 200"):
        digits(labels_per_class=200)


def test_mnist5k_at_full_size() -> None:
    data = mnist5k()
    assert (len(data.train), len(data.val), len(data.test or [])) == (3000, 1000, 1000)
    assert data.train.y.bincount().tolist() == [300] * 10
    assert data.train.x.dtype is torch.uint8  # type: ignore[attr-defined]
    assert data.notes == ()


def test_mnist5k_at_digits_size_is_prepared_as_documented() -> None:
    raw, small = mnist5k(), mnist5k(size=8)
    assert small.schema.shape == (1, 8, 8)
    assert "4:24" in small.notes[0] and "maximum" in small.notes[0]
    index = torch.arange(50)
    crop = raw.train.take(index)[:, 0, 4:24, 4:24].double()  # same seed, same samples
    pooled = torch.zeros(50, 8, 8, dtype=torch.float64)
    for i in range(8):
        rows = slice(20 * i // 8, -(-20 * (i + 1) // 8))
        for j in range(8):
            pooled[:, i, j] = crop[:, rows, 20 * j // 8 : -(-20 * (j + 1) // 8)].mean((1, 2))
    pooled /= pooled.amax((1, 2), keepdim=True)
    got = small.train.take(index)[:, 0]
    assert torch.allclose(got.double(), pooled, atol=1e-6)
    assert torch.equal(got.amax((1, 2)), torch.ones(50))


def test_mnist5k_other_sizes() -> None:
    data = mnist5k(size=14, limit=100)
    assert data.schema.shape == (1, 14, 14) and len(data.train) == 100
    assert "28×28 to 14×14" in data.notes[0]
    with pytest.raises(RequestError, match="dataset.size: got 3"):
        mnist5k(size=3)
