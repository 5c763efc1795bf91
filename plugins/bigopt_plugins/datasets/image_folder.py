"""Images in folders, one folder a class."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bigopt.data import StreamSplit, assemble, check_labels, divide, split_indices, subset
from bigopt.data.files import inside, need_folder
from bigopt.data.image import SUFFIXES, look, read_image
from bigopt.vocabulary.data import Data, Schema, Split, TensorSplit
from bigopt.vocabulary.errors import RequestError

if TYPE_CHECKING:
    from torch import Tensor

_KEY = "dataset.root"
_VAL_NAMES = ("val", "valid", "validation")


def image_folder(
    *,
    root: str,
    size: int | None = None,
    channels: int | None = None,
    flips: bool = True,
    memory_mb: int = 1024,
    seed: int = 0,
    val: float = 0.1,
    test: float = 0.1,
    labels_per_class: int | None = None,
    unlabelled: bool = False,
    limit: int | None = None,
) -> Data:
    """Images (PNG, JPEG, BMP, WebP) as ``root/class/*`` or ``root/{train,val,test}/class/*``, classes by name.

    A missing ``val`` or ``test`` folder is split off the training images. Images of another size are scaled until the
    shorter side fits, and their centre is cropped. They are held in memory as bytes if they fit, else read from disk
    as they are needed.

    Args:
        root: the folder.
        size: height and width, pixels; null takes the size that all images have.
        channels: 1 (grey) or 3 (RGB); null takes 1 where every image is grey.
        flips: whether a horizontally flipped image is still of its class.
        memory_mb: MiB of images to hold in memory at most.
        seed: of the splits.
        val: share of the samples for validation, where there is no such folder.
        test: share for testing, where there is no such folder.
        labels_per_class: labelled training samples kept of each class; null keeps all.
        unlabelled: also hand on the training samples that lost their label.
        limit: use only so many training samples.

    Raises:
        RequestError: no images, an unreadable one, folders that disagree, or an argument out of range.
    """
    if channels not in (None, 1, 3):
        raise RequestError(f"dataset.channels: got {channels}, expected 1, 3 or null")
    if size is not None and size < 1:
        raise RequestError(f"dataset.size: got {size}, expected at least 1 pixel")
    folder = need_folder(root, _KEY)
    try:
        listed, classes = _list(folder)
    except OSError as error:
        raise RequestError(f"{_KEY}: {error.filename} cannot be read ({error.strerror})") from error
    read = _reader([path for files in listed.values() for path, _ in files], folder, size, channels)
    pools = _pools(listed, read, memory_mb << 20)
    check_labels(next(iter(pools.values())).y, classes, f"{_KEY}: {folder}")
    train, validation, tested = _splits(pools, val, test, seed)
    notes = () if isinstance(train, TensorSplit) else (f"images are read from disk: more than {memory_mb} MiB",)
    return assemble(
        "image_folder",
        Schema("classification", "image", (read.channels, read.size, read.size), len(classes), classes, flips=flips),
        train,
        validation,
        tested,
        seed=seed,
        labels_per_class=labels_per_class,
        unlabelled=unlabelled,
        limit=limit,
        arguments={"val": val, "test": test, "size": read.size, "channels": read.channels},
        notes=notes,
    )


@dataclass
class _Reader:
    """Reads image i; handed to worker processes."""

    paths: list[Path]
    root: Path
    size: int
    channels: int

    def __call__(self, place: int) -> Tensor:
        return read_image(self.paths[place], self.size, self.channels, _KEY)

    def identity(self) -> str:
        """Names, sizes and times of the files, for the fingerprint."""
        stats = ((path.relative_to(self.root), path.stat()) for path in self.paths)
        return "\n".join(f"{name} {stat.st_size} {stat.st_mtime_ns}" for name, stat in stats)


def _list(root: Path) -> tuple[dict[str, list[tuple[Path, int]]], tuple[str, ...]]:
    """Files with their labels by split, and the classes. Without split folders everything is ``all``."""
    places = {"train": root / "train"} if (root / "train").is_dir() else {"all": root}
    if "train" in places:
        for split, name in (*(("val", name) for name in _VAL_NAMES), ("test", "test")):
            if split not in places and (root / name).is_dir():
                places[split] = root / name
    classes = {split: _folders(root, place) for split, place in places.items()}
    first = next(iter(classes))
    names = tuple(classes[first])
    if not names:
        raise RequestError(f"{_KEY}: {places[first]} holds no folders; expected one folder of images for each class")
    for split, found in classes.items():
        if tuple(found) != names:
            raise RequestError(
                f"{_KEY}: the classes in {places[split]} ({', '.join(found)}) are not those in {places[first]} "
                f"({', '.join(names)})"
            )
    listed = {
        split: [(path, label) for label, name in enumerate(names) for path in _images(root, places[split] / name)]
        for split in places
    }
    return listed, names


def _folders(root: Path, place: Path) -> list[str]:
    folders = [entry for entry in place.iterdir() if entry.is_dir() and not entry.name.startswith(".")]
    return sorted(inside(root, entry, _KEY).name for entry in folders)


def _images(root: Path, folder: Path) -> list[Path]:
    files = [
        inside(root, path, _KEY)
        for path in sorted(folder.rglob("*"))
        if path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and not path.is_dir()
    ]
    if not files:
        raise RequestError(f"{_KEY}: {folder} holds no images ({', '.join(sorted(SUFFIXES))})")
    return files


def _reader(paths: list[Path], root: Path, size: int | None, channels: int | None) -> _Reader:
    """Looks at every header: finds unreadable files before training does, and the common size."""
    looks = [look(path, _KEY) for path in paths]
    if channels is None:
        channels = 1 if all(seen.grey for seen in looks) else 3
    if size is None:
        first = looks[0]
        for path, seen in zip(paths, looks, strict=True):
            if (seen.width, seen.height) != (first.width, first.height):
                raise RequestError(
                    f"{_KEY}: images differ in size ({paths[0]}: {first.width}×{first.height}, "
                    f"{path}: {seen.width}×{seen.height}): set dataset.size"
                )
        if first.width != first.height:
            raise RequestError(f"{_KEY}: images are {first.width}×{first.height}, not square: set dataset.size")
        size = first.width
    return _Reader(paths, root, size, channels)


def _pools(listed: dict[str, list[tuple[Path, int]]], read: _Reader, memory: int) -> dict[str, Split]:
    import torch

    pools: dict[str, Split] = {}
    start, in_memory = 0, len(read.paths) * read.channels * read.size**2 <= memory
    for name, files in listed.items():
        position = torch.arange(start, start + len(files))
        stream = StreamSplit(read, torch.tensor([label for _, label in files]), position)
        pools[name] = TensorSplit(stream.read(torch.arange(len(files))), stream.y) if in_memory else stream
        start += len(files)
    return pools


def _splits(pools: dict[str, Split], val: float, test: float, seed: int) -> tuple[Split, Split, Split]:
    if "all" in pools:
        return divide(pools["all"], val, test, seed)
    train = pools["train"]
    shares = (0.0 if "val" in pools else val, 0.0 if "test" in pools else test)
    kept, held, out = split_indices(train.y, *shares, seed)
    held_out = {"val": subset(train, held), "test": subset(train, out)} | pools
    return subset(train, kept), held_out["val"], held_out["test"]
