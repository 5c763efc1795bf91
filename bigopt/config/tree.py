"""Reads the config tree: YAML files of bigopt, of plugins and of the user, completed from their schema."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import distributions
from pathlib import Path, PurePosixPath
from typing import Any

import yaml
from omegaconf import OmegaConf

from bigopt.config._entry import Entry, make_entry
from bigopt.config._references import hide_secrets
from bigopt.config.groups import PLUGINS, SLOTS
from bigopt.registry import GROUPS, discover
from bigopt.registry.source import folders
from bigopt.vocabulary.errors import RequestError

OWN = "bigopt"


@dataclass(frozen=True)
class Tree:
    """Config files of some folders, the first that has one winning.

    Attributes:
        folders: roots of config trees.
        synthesise: also offer registered plugins that no file speaks about.
    """

    folders: tuple[Path, ...]
    synthesise: bool = False

    def file(self, path: str) -> Path | None:
        """The YAML file of a config path such as ``model/resnet``."""
        if ".." in PurePosixPath(path).parts:
            return None
        name = path if path.endswith(".yaml") else f"{path}.yaml"
        return next((folder / name for folder in self.folders if (folder / name).is_file()), None)

    def has(self, path: str) -> bool:
        """Whether there is a config of this path, or a plugin to make one of."""
        return self.file(path) is not None or self._plugin(path) is not None

    def is_group(self, path: str) -> bool:
        """Whether this path is a folder of configs."""
        return any((folder / path).is_dir() for folder in self.folders) or (self.synthesise and path in PLUGINS)

    def configs(self, path: str) -> list[str]:
        """Names of the configs in a group."""
        names = {file.stem for folder in self.folders for file in (folder / path).glob("*.yaml") if file.is_file()}
        if self.synthesise and path in PLUGINS and path not in SLOTS:
            names |= {name for name in discover()[PLUGINS[path]] if "@" not in name}
        return sorted(names)

    def groups(self, path: str) -> list[str]:
        """Names of the groups in a group."""
        found = {child.name for folder in self.folders for child in _children(folder / path) if child.is_dir()}
        return sorted(found | (set(PLUGINS) if self.synthesise and not path else set()))

    def read(self, path: str) -> Entry:
        """The completed configuration of a path.

        Raises:
            KeyError: there is none.
            RequestError: the file is not valid YAML, or not a mapping.
        """
        path = path.removesuffix(".yaml")
        file = self.file(path)
        if file is not None:
            content, package = _load(file)
        elif self._plugin(path) is not None:
            content, package = {}, None
        else:
            raise KeyError(path)
        return make_entry(path, content, package)

    def _plugin(self, path: str) -> str | None:
        """Name of the registered plugin that a path stands for, where plugins are offered without a file."""
        if not self.synthesise:
            return None
        parts = PurePosixPath(path.removesuffix(".yaml"))
        group = str(parts.parent)
        known = group in PLUGINS and group not in SLOTS and parts.name in discover()[PLUGINS[group]]
        return parts.name if known else None


def builtin() -> Tree:
    """Bigopt's own tree, the files that plugins of others ship, and the names of all plugins."""
    own = Path(__file__).parent.parent / "conf"
    return Tree((own, *_shipped()), synthesise=True)


def _shipped() -> list[Path]:
    """Folders ``conf`` in the packages of other distributions' plugins, found without reading or importing any."""
    known = set(GROUPS.values())
    modules = {
        point.value.partition(":")[0].strip()
        for distribution in distributions()
        for point in distribution.entry_points
        if point.group in known and distribution.name != OWN
    }
    conf = (folder / "conf" for module in sorted(modules) for folder in folders(module))
    return list(dict.fromkeys(folder for folder in conf if folder.is_dir()))


def _children(folder: Path) -> Iterator[Path]:
    return folder.iterdir() if folder.is_dir() else iter(())


def _load(file: Path) -> tuple[dict[str, Any], str | None]:
    """Content and ``@package`` header of a file, for the caller to change; secrets in it become references."""
    try:
        known = file.stat()
    except OSError as error:
        raise RequestError(f"{file}: cannot be read: {error.strerror}") from error
    content, package = _parse(file, known.st_mtime_ns, known.st_size)
    return copy.deepcopy(content), package


@lru_cache(maxsize=256)
def _parse(file: Path, _changed: int, _size: int) -> tuple[dict[str, Any], str | None]:
    """A file is parsed once for all compositions of a process, as long as it stays as it is."""
    try:
        text = file.read_text(encoding="utf-8")
        content = OmegaConf.to_container(OmegaConf.create(text or "{}"), resolve=False)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{file}:{mark.line + 1}" if mark is not None else str(file)
        raise RequestError(f"{where}: not valid YAML: {getattr(error, 'problem', None) or error}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise RequestError(f"{file}: cannot be read: {error}") from error
    if not isinstance(content, dict):
        raise RequestError(f"{file}: got a {type(content).__name__}, expected a mapping of settings")
    return {str(key): value for key, value in hide_secrets(content, file.stem).items()}, _package(text)


def _package(text: str) -> str | None:
    """The ``# @package`` header, which may only stand before the content."""
    for line in text.splitlines():
        line = line.strip()
        if line and not line.startswith("#"):
            return None
        words = line.lstrip("#").split()
        if words[:1] == ["@package"] and len(words) == 2:
            return words[1]
    return None
