"""image_folder: layouts, in memory and streamed, and what is refused."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from bigopt.data import StreamSplit, batches
from bigopt.vocabulary.data import TensorSplit
from bigopt.vocabulary.errors import RequestError
from bigopt_plugins.datasets.image_folder import image_folder


def fill(place: Path, n: int = 20, size: tuple[int, int] = (6, 6), mode: str = "RGB", suffix: str = "png") -> Path:
    """Two classes, the second brighter."""
    rng = np.random.default_rng(len(str(place)))
    for label, name in enumerate(("cat", "dog")):
        (place / name).mkdir(parents=True, exist_ok=True)
        for i in range(n):
            shape = (size[1], size[0]) if mode == "L" else (size[1], size[0], 3)
            pixels = rng.integers(100 * label, 100 * label + 100, shape, dtype=np.uint8)
            Image.fromarray(pixels).save(place / name / f"{i:03}.{suffix}")
    return place


def test_pixels_labels_and_names(tmp_path: Path) -> None:
    data = image_folder(root=str(fill(tmp_path)))
    assert data.schema.class_names == ("cat", "dog") and data.schema.shape == (3, 6, 6) and data.schema.flips
    assert (len(data.train), len(data.val), len(data.test or [])) == (32, 4, 4)
    assert isinstance(data.train, TensorSplit) and data.train.x.dtype is torch.uint8
    assert torch.equal((data.train.x.float().mean((1, 2, 3)) > 100).long(), data.train.y)
    stored = {np.asarray(Image.open(path)).tobytes() for path in tmp_path.rglob("*.png")}
    assert all(row.permute(1, 2, 0).numpy().tobytes() in stored for row in data.train.x)


def test_split_folders_are_kept(tmp_path: Path) -> None:
    for name, n in (("train", 20), ("validation", 3), ("test", 5)):
        fill(tmp_path / name, n, mode="L")
    data = image_folder(root=str(tmp_path), flips=False)
    assert (len(data.train), len(data.val), len(data.test or [])) == (40, 6, 10)
    assert data.schema.shape == (1, 6, 6) and not data.schema.flips
    for path in (tmp_path / "validation").rglob("*.png"):
        path.unlink()
    with pytest.raises(RequestError, match="validation/cat holds no images"):
        image_folder(root=str(tmp_path))


def test_a_missing_split_folder_is_split_off(tmp_path: Path) -> None:
    fill(tmp_path / "train", 20)
    fill(tmp_path / "test", 5)
    data = image_folder(root=str(tmp_path), val=0.2)
    assert (len(data.train), len(data.val), len(data.test or [])) == (32, 8, 10)


def test_streaming_equals_memory(tmp_path: Path) -> None:
    root = str(fill(tmp_path, size=(9, 7)))
    kept, streamed = (image_folder(root=root, size=5, memory_mb=mb) for mb in (100, 0))
    assert isinstance(streamed.train, StreamSplit) and "read from disk" in streamed.notes[0]
    for a, b in zip(batches(kept.train, 16, seed=1), batches(streamed.train, 16, seed=1, workers=2), strict=True):
        assert torch.equal(a.x, b.x) and torch.equal(a.index, b.index)
    assert torch.allclose(kept.mean, streamed.mean) and torch.allclose(kept.std, streamed.std)  # type: ignore[arg-type]
    few = image_folder(root=root, size=5, memory_mb=0, labels_per_class=3, unlabelled=True)
    assert few.train.y.tolist() == [0, 0, 0, 1, 1, 1]
    assert few.unlabelled is not None and bool((few.unlabelled.y == -1).all()) and len(few.unlabelled) == 26


def test_sizes_are_scaled_and_cropped_or_asked_for(tmp_path: Path) -> None:
    fill(tmp_path, 10, size=(12, 6))
    with pytest.raises(RequestError, match="are 12×6, not square: set dataset.size"):
        image_folder(root=str(tmp_path))
    fill(tmp_path, 1, size=(6, 6))
    with pytest.raises(RequestError, match="images differ in size .*6×6.*12×6.*: set dataset.size"):
        image_folder(root=str(tmp_path))
    stripes = np.zeros((6, 12), dtype=np.uint8)
    stripes[:, 3:9] = 255  # the square in the middle
    for path in tmp_path.rglob("*.png"):
        Image.fromarray(stripes).save(path)
    data = image_folder(root=str(tmp_path), size=6)
    assert data.schema.shape == (1, 6, 6)
    assert bool((data.train.take(torch.arange(4)) == 1).all())


def test_16_bit_grey_and_palettes_keep_their_values(tmp_path: Path) -> None:
    fill(tmp_path, 10)
    ramp = (np.arange(36, dtype=np.uint16) * 1800).reshape(6, 6)
    for path in tmp_path.rglob("*.png"):
        Image.fromarray(ramp).save(path)
    x = image_folder(root=str(tmp_path)).train.take(torch.tensor([0]))[0, 0]
    assert torch.equal((x * 255).round().long(), torch.from_numpy((ramp >> 8).astype(np.int64)))


def test_a_corrupt_image_is_named(tmp_path: Path) -> None:
    bad = fill(tmp_path) / "cat" / "004.png"
    good = bad.read_bytes()
    bad.write_bytes(b"this is no image")
    with pytest.raises(RequestError, match=r"dataset.root: .*cat/004.png: not a readable image") as error:
        image_folder(root=str(tmp_path))
    assert "\n" not in str(error.value)
    bad.write_bytes(good[:60])  # the header is whole, the pixels are not
    with pytest.raises(RequestError, match=r"cat/004.png: damaged image"):
        image_folder(root=str(tmp_path))
    bad.write_bytes(b"")
    with pytest.raises(RequestError, match="cat/004.png"):
        image_folder(root=str(tmp_path))


def test_a_corrupt_image_is_named_while_streaming(tmp_path: Path) -> None:
    fill(tmp_path)
    data = image_folder(root=str(tmp_path), memory_mb=0)
    place = int(data.train.position[9])  # type: ignore[attr-defined]
    path = data.train.load.paths[place]  # type: ignore[attr-defined]
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(RequestError, match=f"{path.name}: damaged image") as error:
        list(batches(data.train, 8, workers=1))
    assert "\n" not in str(error.value)


def test_decompression_bombs_and_programs_are_refused(tmp_path: Path) -> None:
    bad = fill(tmp_path) / "dog" / "bomb.png"
    for side in (60_000, 9_000):
        header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
        chunk = b"IHDR" + header
        data = struct.pack(">I", len(header)) + chunk + struct.pack(">I", zlib.crc32(chunk))
        empty = struct.pack(">I", 0) + b"IDAT" + struct.pack(">I", zlib.crc32(b"IDAT"))
        bad.write_bytes(b"\x89PNG\r\n\x1a\n" + data + empty)
        with pytest.raises(RequestError, match="bomb.png: .*refused"):
            image_folder(root=str(tmp_path))
    bad.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 6 6\nshowpage\n")
    with pytest.raises(RequestError, match="bomb.png: not a readable image"):
        image_folder(root=str(tmp_path))


def test_links_out_of_the_root_are_refused(tmp_path: Path) -> None:
    root, other = fill(tmp_path / "root"), fill(tmp_path / "other")
    (root / "dog" / "in.png").symlink_to(root / "dog" / "000.png")
    data = image_folder(root=str(root))  # a link inside is fine
    assert len(data.train) + len(data.val) + len(data.test or []) == 41
    link = root / "dog" / "out.png"
    link.symlink_to(other / "dog" / "000.png")
    with pytest.raises(RequestError, match="out.png is a link that leads out of"):
        image_folder(root=str(root))
    link.unlink()
    (root / "eel").symlink_to(other / "cat")
    with pytest.raises(RequestError, match="eel is a link that leads out of"):
        image_folder(root=str(root))


def test_folders_that_cannot_be_right(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="dataset.root: the folder .* does not exist"):
        image_folder(root=str(tmp_path / "none"))
    with pytest.raises(RequestError, match="holds no folders"):
        image_folder(root=str(tmp_path))
    fill(tmp_path / "train")
    fill(tmp_path / "test")
    (tmp_path / "test" / "dog").rename(tmp_path / "test" / "wolf")
    with pytest.raises(RequestError, match=r"test \(cat, wolf\) are not those in .*train \(cat, dog\)"):
        image_folder(root=str(tmp_path))
    single = tmp_path / "single"
    fill(single, 5)
    for path in sorted((single / "dog").iterdir())[1:]:
        path.unlink()
    with pytest.raises(RequestError, match="one sample only, which cannot be split: 'dog'"):
        image_folder(root=str(single))
    for options in ({"channels": 2}, {"size": 0}):
        with pytest.raises(RequestError, match=f"dataset.{next(iter(options))}: got"):
            image_folder(root=str(single), **options)  # type: ignore[arg-type]


def test_fingerprint_follows_the_files(tmp_path: Path) -> None:
    root = str(fill(tmp_path))
    for memory in (100, 0):
        before = image_folder(root=root, memory_mb=memory).fingerprint
        assert image_folder(root=root, memory_mb=memory).fingerprint == before
        Image.fromarray(np.zeros((6, 6, 3), dtype=np.uint8)).save(tmp_path / "cat" / "000.png")
        assert image_folder(root=root, memory_mb=memory).fingerprint != before
        fill(tmp_path)
