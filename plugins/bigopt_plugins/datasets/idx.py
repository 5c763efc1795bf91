"""Fashion-MNIST and MNIST from their IDX files: 70,000 grey images of 28×28 pixels in ten classes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from bigopt.data import assemble, split_indices, subset
from bigopt.data.files import data_folders, need_folder
from bigopt.vocabulary.data import Data, Schema, Split, TensorSplit
from bigopt.vocabulary.errors import RequestError
from bigopt_plugins.datasets._classes import check_classes, select_classes

if TYPE_CHECKING:
    from collections.abc import Sequence

_CLOTHES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)
_FILES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")


def fashion_mnist(
    *,
    root: str | None = None,
    seed: int = 0,
    val: float = 0.1,
    labels_per_class: int | None = None,
    unlabelled: bool = False,
    limit: int | None = None,
    classes: tuple[int, ...] | None = None,
) -> Data:
    """Fashion-MNIST (Xiao et al. 2017), 28×28 grey images of clothes; the official test files are the test split.

    Args:
        root: folder with the four IDX files, gzip or raw; null looks in ``$BIGOPT_DATA/fashion-mnist`` and in
            ``datasets/fashion-mnist`` of the XDG data folders, where Debian's package puts it.
        seed: of the validation split.
        val: share of the official training samples for validation.
        labels_per_class: labelled training samples kept of each class; null keeps all.
        unlabelled: also hand on the training samples that lost their label.
        limit: use only so many training samples.
        classes: labels of the classes that are used, renumbered in this order; null means all ten.

    Raises:
        RequestError: files missing or damaged, or an argument out of range.
    """
    folder = _find(
        root, "fashion-mnist", "FashionMNIST", "install Debian's package (apt-get install dataset-fashion-mnist)"
    )
    return _official(
        "fashion_mnist",
        folder,
        _CLOTHES,
        classes,
        val,
        flips=True,
        seed=seed,
        labels_per_class=labels_per_class,
        unlabelled=unlabelled,
        limit=limit,
    )


def mnist(
    *,
    root: str | None = None,
    seed: int = 0,
    val: float = 0.1,
    labels_per_class: int | None = None,
    unlabelled: bool = False,
    limit: int | None = None,
    classes: tuple[int, ...] | None = None,
) -> Data:
    """MNIST (LeCun et al. 1998), 28×28 grey images of digits; the official test files are the test split.

    Args:
        root: folder with the four IDX files, gzip or raw; null looks in ``$BIGOPT_DATA/mnist`` and in
            ``datasets/mnist`` of the XDG data folders.
        seed: of the validation split.
        val: share of the official training samples for validation.
        labels_per_class: labelled training samples kept of each class; null keeps all.
        unlabelled: also hand on the training samples that lost their label.
        limit: use only so many training samples.
        classes: labels of the classes that are used, renumbered in this order; null means all ten.

    Raises:
        RequestError: files missing or damaged, or an argument out of range.
    """
    folder = _find(
        root, "mnist", "MNIST", "download its four IDX files (5,000 of its images come with dataset=mnist5k)"
    )
    return _official(
        "mnist",
        folder,
        tuple(map(str, range(10))),
        classes,
        val,
        flips=False,
        seed=seed,
        labels_per_class=labels_per_class,
        unlabelled=unlabelled,
        limit=limit,
    )


def _official(
    name: str,
    folder: Path,
    titles: tuple[str, ...],
    classes: tuple[int, ...] | None,
    val: float,
    *,
    flips: bool,
    seed: int,
    **kept: Any,
) -> Data:
    """Ten classes from four files: the official test files for testing, validation taken from the training files.

    Args:
        name: of the dataset.
        folder: with the files.
        titles: of the classes.
        classes: labels that are used; None for all.
        val: share of the training samples for validation.
        flips: whether a mirrored image is one of the same class.
        seed: of the split.
        kept: which training samples are kept, and with a label.
    """
    chosen = check_classes(classes, 10)
    train, test = (select_classes(split, chosen, 10) for split in _read_pool(folder))
    names = tuple(titles[label] for label in chosen)
    schema = Schema("classification", "image", tuple(train.x.shape[1:]), len(names), names, flips=flips)
    trained, validation = _hold_out(train, val, seed)
    arguments = {"val": val} | ({} if classes is None else {"classes": chosen})
    return assemble(name, schema, trained, validation, test, seed=seed, arguments=arguments, **kept)


def _find(root: str | None, name: str, torch_name: str, how: str) -> Path:
    """The folder that holds the files; a given root may also be the parent that torchvision makes."""
    if root is not None:
        given = need_folder(root, "dataset.root")
        tried = [given, given / name, given / torch_name / "raw", given / "raw"]
    else:
        tried = data_folders(name)
    for folder in tried:
        if any(_path(folder, file) is not None for file in _FILES):
            return folder
    looked = ", ".join(str(folder) for folder in tried)
    raise RequestError(f"dataset.root: no IDX files in {looked}: {how}, or set dataset.root to their folder")


def _path(folder: Path, file: str) -> Path | None:
    """An IDX file under any of the names in use."""
    for stem in (file, file.replace("-idx", ".idx")):
        for path in (folder / f"{stem}.gz", folder / stem):
            if path.is_file():
                return path
    return None


def _read_pool(folder: Path) -> tuple[TensorSplit, TensorSplit]:
    paths = [_path(folder, file) for file in _FILES]
    missing = [file for file, path in zip(_FILES, paths, strict=True) if path is None]
    if missing:
        raise RequestError([f"dataset.root: {folder} lacks the file {file} (or {file}.gz)" for file in missing])
    found = [path for path in paths if path is not None]
    train, test = _read(found[:2]), _read(found[2:])
    if train.x.shape[1:] != test.x.shape[1:]:
        raise RequestError(
            f"dataset.root: {folder}: training images are {tuple(train.x.shape[2:])} pixels, "
            f"test images {tuple(test.x.shape[2:])}"
        )
    return train, test


def _read(paths: Sequence[Path]) -> TensorSplit:
    import torch

    from bigopt_plugins.datasets._idx_file import read_idx

    images, labels = read_idx(paths[0], 3), read_idx(paths[1], 1)
    if len(images) != len(labels):
        raise RequestError(
            f"dataset.root: {paths[0]} holds {len(images):,} images, but {paths[1]} {len(labels):,} labels"
        )
    if len(labels) and labels.max() > 9:
        at = int((labels > 9).argmax())
        raise RequestError(f"dataset.root: {paths[1]}: label {labels[at]} at offset {8 + at}, expected 0 to 9")
    return TensorSplit(torch.from_numpy(images).unsqueeze(1), torch.from_numpy(labels).long())


def _hold_out(train: TensorSplit, val: float, seed: int) -> tuple[Split, Split]:
    kept, held, _ = split_indices(train.y, val, 0.0, seed)
    return subset(train, kept), subset(train, held)
