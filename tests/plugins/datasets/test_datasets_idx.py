"""IDX files: read right, and every kind of damage is one clear line."""

from __future__ import annotations

import gzip
import struct
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bigopt.vocabulary.errors import RequestError
from bigopt_plugins.datasets._idx_file import read_idx
from bigopt_plugins.datasets.idx import fashion_mnist, mnist

DEBIAN = Path("/usr/share/datasets/fashion-mnist")
needs_debian = pytest.mark.skipif(
    not DEBIAN.is_dir(), reason="Fashion-MNIST is not installed (apt-get install dataset-fashion-mnist)"
)
NAMES = {"train-images": "train-images-idx3-ubyte", "train-labels": "train-labels-idx1-ubyte"}
NAMES |= {"test-images": "t10k-images-idx3-ubyte", "test-labels": "t10k-labels-idx1-ubyte"}


def idx(values: np.ndarray) -> bytes:
    return struct.pack(f">BBBB{values.ndim}I", 0, 0, 8, values.ndim, *values.shape) + values.tobytes()


def folder(root: Path, packed: bool = True, n: int = 100) -> Path:
    rng = np.random.default_rng(0)
    root.mkdir(parents=True, exist_ok=True)
    for part, count in (("train", n), ("test", 20)):
        images = rng.integers(0, 256, (count, 6, 6), dtype=np.uint8)
        labels = (np.arange(count) % 10).astype(np.uint8)
        for kind, values in (("images", images), ("labels", labels)):
            name, content = NAMES[f"{part}-{kind}"], idx(values)
            (root / (name + ".gz" if packed else name)).write_bytes(gzip.compress(content) if packed else content)
    return root


@pytest.mark.parametrize("packed", [True, False])
def test_reads_gzip_and_raw(tmp_path: Path, packed: bool) -> None:
    data = mnist(root=str(folder(tmp_path, packed)))
    assert (len(data.train), len(data.val), len(data.test or [])) == (90, 10, 20)
    images = np.random.default_rng(0).integers(0, 256, (100, 6, 6), dtype=np.uint8)
    together = torch.cat([data.train.x, data.val.x]).reshape(100, -1)  # type: ignore[attr-defined]
    assert torch.equal(together.unique(dim=0), torch.from_numpy(images).reshape(100, -1).unique(dim=0))
    assert data.val.y.bincount().tolist() == [1] * 10
    assert data.test is not None and torch.equal(data.test.y, torch.arange(20) % 10)


def test_other_file_names_and_torchvisions_folder(tmp_path: Path) -> None:
    place = folder(tmp_path / "FashionMNIST" / "raw", packed=False)
    for path in list(place.iterdir()):
        path.rename(path.with_name(path.name.replace("-idx", ".idx")))
    assert len(fashion_mnist(root=str(tmp_path)).train) == 90


def test_a_missing_set_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RequestError, match="dataset.root: no IDX files in .*apt-get install dataset-fashion-mnist"):
        fashion_mnist(root=str(tmp_path))
    monkeypatch.setattr("bigopt_plugins.datasets.idx.data_folders", lambda name: [tmp_path / name])
    with pytest.raises(RequestError, match="dataset=mnist5k"):
        mnist()
    folder(tmp_path / "mnist")
    assert len(mnist().train) == 90
    (tmp_path / "mnist" / (NAMES["test-labels"] + ".gz")).unlink()
    with pytest.raises(RequestError, match="lacks the file t10k-labels-idx1-ubyte"):
        mnist()


def test_some_classes_are_a_task_of_their_own(tmp_path: Path) -> None:
    root = str(folder(tmp_path))
    whole, part = fashion_mnist(root=root), fashion_mnist(root=root, classes=(7, 5))
    assert part.schema.class_names == ("Sneaker", "Sandal")
    assert part.train.y.bincount().tolist() == [9, 9]
    seven = torch.cat([split.x[split.y == 7] for split in (whole.train, whole.val)]).flatten(1)  # type: ignore[attr-defined]
    zero = torch.cat([split.x[split.y == 0] for split in (part.train, part.val)]).flatten(1)  # type: ignore[attr-defined]
    assert torch.equal(seven.unique(dim=0), zero.unique(dim=0))
    assert part.fingerprint != whole.fingerprint
    assert mnist(root=root, classes=(3, 1, 2)).schema.class_names == ("3", "1", "2")
    for wrong in ((1,), (1, 1), (1, 10)):
        with pytest.raises(RequestError, match="dataset.classes"):
            fashion_mnist(root=root, classes=wrong)


def _replace(root: Path, part: str, content: bytes) -> None:
    (root / (NAMES[part] + ".gz")).unlink()
    (root / NAMES[part]).write_bytes(content)


def test_counts_and_labels_that_do_not_fit(tmp_path: Path) -> None:
    root = folder(tmp_path)
    _replace(root, "train-labels", idx(np.zeros(99, dtype=np.uint8)))
    with pytest.raises(RequestError, match="holds 100 images, but .* 99 labels"):
        mnist(root=str(root))
    labels = (np.arange(100) % 10).astype(np.uint8)
    labels[7] = 10
    (root / NAMES["train-labels"]).write_bytes(idx(labels))
    with pytest.raises(RequestError, match="label 10 at offset 15, expected 0 to 9"):
        mnist(root=str(root))
    (root / NAMES["train-labels"]).write_bytes(idx((np.arange(100) % 10).astype(np.uint8)))
    _replace(root, "test-images", idx(np.zeros((20, 5, 5), dtype=np.uint8)))
    with pytest.raises(RequestError, match=r"training images are \(6, 6\) pixels"):
        mnist(root=str(root))


GOOD = idx(np.arange(24, dtype=np.uint8).reshape(2, 3, 4))


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "truncated at offset 0, within the magic"),
        (b"\x00\x00\x08\x01" + GOOD[4:], "magic number 0x00000801 at offset 0, expected 0x00000803"),
        (b"PK\x03\x04" + GOOD[4:], "magic number 0x504b0304"),
        (GOOD[:10], "truncated at offset 10, within the sizes"),
        (GOOD[:-1], "more than the file holds"),
        (GOOD + b"x", "goes on after offset 40"),
        (gzip.compress(GOOD[:-1]), "truncated at offset 39: the header claims 2 × 3 × 4 bytes, 1 are missing"),
        (gzip.compress(GOOD)[:-9], "damaged or truncated gzip"),
        (gzip.compress(GOOD)[:-8] + b"\0\0\0\0\0\0\0\0", "damaged or truncated gzip"),
        (gzip.compress(GOOD) + b"trailing", "damaged or truncated gzip"),
        (b"\x1f\x8b", "damaged or truncated gzip"),
    ],
    ids=[
        *("empty", "magic", "zip", "cut sizes", "cut pixels", "goes on"),
        *("gzip: cut pixels", "gzip: cut stream", "gzip: wrong checksum", "gzip: trailing", "gzip: header alone"),
    ],
)
def test_damage_says_what_and_where(tmp_path: Path, content: bytes, says: str) -> None:
    path = tmp_path / "images"
    path.write_bytes(content)
    with pytest.raises(RequestError, match=says) as error:
        read_idx(path, 3)
    assert str(error.value).startswith(f"dataset.root: {path}: ") and "\n" not in str(error.value)


def test_a_huge_header_allocates_nothing(tmp_path: Path) -> None:
    header = struct.pack(">BBBB3I", 0, 0, 8, 3, 2**32 - 1, 2**32 - 1, 2**32 - 1)
    bomb = struct.pack(">BBBB3I", 0, 0, 8, 3, 1000, 1000, 1000)
    tracemalloc.start()
    for content in (header, header + bytes(1000), gzip.compress(header + bytes(1000)), gzip.compress(bomb)):
        (tmp_path / "images").write_bytes(content)
        with pytest.raises(RequestError, match="truncated"):
            read_idx(tmp_path / "images", 3)
    assert tracemalloc.get_traced_memory()[1] < 10_000_000
    tracemalloc.stop()


def test_unreadable_and_missing_files(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="cannot be read"):
        read_idx(tmp_path / "none", 3)
    with pytest.raises(RequestError, match="cannot be read"):
        read_idx(tmp_path, 3)


@settings(max_examples=200, deadline=None)
@given(
    st.one_of(
        st.binary(max_size=80),
        st.binary(max_size=60).map(lambda tail: b"\x00\x00\x08\x03" + tail),
        st.binary(max_size=60).map(lambda tail: b"\x1f\x8b\x08" + tail),
        st.binary(max_size=60).map(lambda tail: gzip.compress(b"\x00\x00\x08\x03" + tail)),
        st.tuples(st.integers(0, len(GOOD) - 1), st.integers(0, 255)).map(
            lambda change: GOOD[: change[0]] + bytes([change[1]]) + GOOD[change[0] + 1 :]
        ),
        st.tuples(st.integers(0, 50), st.integers(0, 255)).map(
            lambda change: (
                gzip.compress(GOOD, mtime=0)[: change[0]]
                + bytes([change[1]])
                + gzip.compress(GOOD, mtime=0)[change[0] + 1 :]
            )
        ),
    ),
    st.sampled_from([1, 3]),
)
def test_any_bytes_give_an_array_or_a_request_error(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, dimensions: int
) -> None:
    path = tmp_path_factory.getbasetemp() / "fuzz"
    path.write_bytes(content)
    try:
        found = read_idx(path, dimensions)
    except RequestError as error:
        assert str(path) in str(error) and "\n" not in str(error)
    else:
        assert found.ndim == dimensions and found.dtype == np.uint8


@needs_debian
def test_fashion_mnist_of_debian() -> None:
    data = fashion_mnist()
    assert (len(data.train), len(data.val), len(data.test or [])) == (54000, 6000, 10000)
    assert data.val.y.bincount().tolist() == [600] * 10
    assert data.schema.shape == (1, 28, 28) and data.schema.flips and data.schema.class_names[9] == "Ankle boot"
    assert data.train.x.dtype is torch.uint8  # type: ignore[attr-defined]
    # The mean and deviation of all 60,000 are known: 0.2860, 0.3530.
    assert data.mean is not None and data.mean.item() == pytest.approx(0.2860, abs=1e-3)
    assert data.std is not None and data.std.item() == pytest.approx(0.3530, abs=1e-3)
    assert fashion_mnist(val=6000 / 60000).fingerprint == data.fingerprint


@needs_debian
def test_few_labels_of_fashion_mnist() -> None:
    data = fashion_mnist(labels_per_class=10, unlabelled=True, limit=5000)
    assert data.train.y.bincount().tolist() == [10] * 10
    assert data.unlabelled is not None and len(data.unlabelled) == 4900
