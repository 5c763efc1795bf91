"""Finds a module's source without importing it, or the packages above it."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any


class Broken(Exception):
    """A plugin cannot work; the message says why."""


@dataclass(frozen=True)
class Source:
    """A module's source.

    Attributes:
        module: dotted name.
        path: its file.
        data: content; None for a module without Python source.
        package: whether it is a package's ``__init__``.
    """

    module: str
    path: str
    data: bytes | None
    package: bool


def find(module: str) -> Source:
    """The source of a module.

    Every level is looked up by the finders of ``sys.meta_path``, with the search locations of the level above, so that
    editable installs (path files and finders) are seen as the interpreter sees them, and nothing is imported.

    Raises:
        Broken: there is no such module, or it cannot be read.
    """
    spec = find_spec(module)
    if spec is None:
        raise Broken(f"module {missing_level(module)!r} is not there")
    return Source(module, str(spec.origin or ""), _read(spec), spec.submodule_search_locations is not None)


def locate(module: str) -> Path | None:
    """The file of a module, found without importing anything; None where there is none."""
    spec = find_spec(module)
    return Path(spec.origin) if spec is not None and spec.has_location and spec.origin else None


def find_spec(module: str) -> ModuleSpec | None:
    """The specification of a module, found without importing anything; None where there is none."""
    locations: Sequence[str] | None = None
    spec = None
    parts = module.split(".")
    for depth in range(1, len(parts) + 1):
        spec = _find_level(".".join(parts[:depth]), locations)
        if spec is None:
            return None
        locations = spec.submodule_search_locations
        if locations is None and depth < len(parts):
            return None
    return spec


def folders(module: str) -> list[Path]:
    """Folders of the packages around a module, the innermost first."""
    names = module.split(".")
    found: list[Path] = []
    for depth in range(len(names), 0, -1):
        spec = find_spec(".".join(names[:depth]))
        found += map(Path, (spec.submodule_search_locations if spec is not None else None) or ())
    return found


def missing_level(module: str) -> str:
    """The outermost package or module that is not there."""
    parts = module.split(".")
    for depth in range(1, len(parts)):
        name = ".".join(parts[:depth])
        if find_spec(name) is None:
            return name
    return module


def _find_level(name: str, locations: Sequence[str] | None) -> ModuleSpec | None:
    """One level, asked of each finder in turn; a finder that fails is passed over, as if it knew nothing."""
    for finder in sys.meta_path:
        ask: Any = getattr(finder, "find_spec", None)
        try:
            spec = ask(name, locations) if ask is not None else None
        except Exception:
            continue
        if spec is not None:
            return spec  # type: ignore[no-any-return]
    return _namespace(name, locations)


def _namespace(name: str, locations: Sequence[str] | None) -> ModuleSpec | None:
    """A namespace package inside another: the interpreter's finder looks for the parent among imported modules."""
    inside = [os.path.join(folder, name.rpartition(".")[2]) for folder in locations or ()]
    inside = [folder for folder in inside if os.path.isdir(folder)]
    if not inside:
        return None
    spec = ModuleSpec(name, None, is_package=True)
    spec.submodule_search_locations = inside
    return spec


def _read(spec: ModuleSpec) -> bytes | None:
    """Content of the source file, also from inside an archive; None where there is no Python source."""
    origin = str(spec.origin or "")
    if not spec.has_location or not origin.endswith((".py", ".pyw")):
        return None
    try:
        if os.path.isfile(origin):
            return Path(origin).read_bytes()
        loader: Any = spec.loader
        data: bytes = loader.get_data(origin)
    except (OSError, AttributeError) as error:
        raise Broken(f"{origin} cannot be read: {error}") from None
    return data
