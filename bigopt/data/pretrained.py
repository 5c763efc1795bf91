"""Where the folder of a pretrained model or tokenizer lies: at a path, or inside an installed package."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path


def pretrained_folder(given: str) -> str:
    """The folder that a configuration means.

    Args:
        given: the path of a folder, or the name of an installed Python package that holds one (itself or one level
            below, with a ``config.json``). The package is looked up, not imported: none of its code runs.

    Returns:
        The folder of the package; ``given`` itself where it is a path or no such package is installed.
    """
    if not given.isidentifier() or Path(given).exists():
        return given
    spec = find_spec(given)
    for place in (spec.submodule_search_locations or ()) if spec is not None else ():
        root = Path(place)
        for folder in (root, *sorted(child for child in root.iterdir() if child.is_dir())):
            if (folder / "config.json").is_file():
                return str(folder)
    return given
