"""Finds plugins through entry points; reads one only when it is asked for."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import lru_cache

from bigopt.registry import probe, reading
from bigopt.registry.entries import offered
from bigopt.registry.plugin import GROUPS, RESERVED, Plugin
from bigopt.registry.source import Broken, folders
from bigopt.registry.suggest import suggestion
from bigopt.registry.syntax import OutOfSight
from bigopt.vocabulary.errors import RequestError

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")
_TARGET = re.compile(r"([A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*)\s*:\s*([A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*)")


class Catalogue(Mapping[str, Plugin]):
    """The plugins of one kind by name, each read when it is first asked for.

    Args:
        entries: what the distributions offer, as :func:`discover` found it.
    """

    def __init__(self, entries: Mapping[str, Plugin]) -> None:
        self._entries = dict(entries)
        self._read: dict[str, Plugin] = {}

    def __getitem__(self, name: str) -> Plugin:
        """The plugin, its signature and its reason for being broken included."""
        if name not in self._read:
            self._read[name] = _described(self._entries[name])
        return self._read[name]

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)


def discover() -> dict[str, Catalogue]:
    """Every installed plugin by kind and name, broken ones too; no plugin is imported.

    Where two distributions offer one name, bigopt's own plugin has it, then that of the alphabetically first
    distribution; the others are listed as broken under ``name@distribution``. What was found is kept until the search
    path or one of its folders changes.
    """
    return _discover(tuple((folder, _changed(folder)) for folder in sys.path))


def get(kind: str, name: str) -> Plugin:
    """One plugin, which may be broken.

    Raises:
        RequestError: unknown kind or name, with the nearest names.
    """
    known = catalogue(kind)
    if name not in known:
        # names with @ are those that lost to another distribution; they cannot be chosen
        names = sorted(found for found in known if "@" not in found)
        raise RequestError(
            f"{kind}: there is no plugin {name!r}; installed: {', '.join(names) or 'none'}{suggestion(name, names)}"
        )
    return known[name]


def catalogue(kind: str) -> Catalogue:
    """All plugins of a kind.

    Raises:
        RequestError: there is no such kind, with the nearest.
    """
    if kind not in GROUPS:
        raise RequestError(f"plugins: got {kind!r}, expected a kind: {', '.join(GROUPS)}{suggestion(kind, GROUPS)}")
    return discover()[kind]


@lru_cache(maxsize=4)
def _discover(path: tuple[tuple[str, int], ...]) -> dict[str, Catalogue]:
    found: dict[str, dict[str, Plugin]] = {kind: {} for kind in GROUPS}
    for plugin in offered():
        _add(found[plugin.kind], plugin)
    return {kind: Catalogue(dict(sorted(plugins.items()))) for kind, plugins in found.items()}


def _changed(folder: str) -> int:
    try:
        return os.stat(folder or ".").st_mtime_ns
    except OSError:
        return 0


def _add(plugins: dict[str, Plugin], plugin: Plugin) -> None:
    holder = plugins.get(plugin.name)
    if holder is None:
        plugins[plugin.name] = plugin
        return
    name = f"{plugin.name}@{plugin.distribution}"
    while name in plugins:
        name += "'"
    reason = f"the name {plugin.name!r} is taken by {holder.distribution} {holder.version} ({holder.target})"
    plugins[name] = replace(plugin, name=name, error=reason)


def _described(plugin: Plugin) -> Plugin:
    """The entry with what its source says."""
    if plugin.error is not None:
        return plugin
    try:
        _check_entry(plugin)
        found = _reading(plugin)
        _check_names(plugin.kind, found)
    except Broken as error:
        return replace(plugin, error=str(error))
    except Exception as error:  # nothing that one plugin's source holds may break the others
        return replace(plugin, error=f"cannot be read: {type(error).__name__}: {error}")
    return replace(
        plugin,
        summary=found.summary,
        arguments=found.arguments,
        facts=found.facts,
        variadic=found.variadic,
        conf_dir=next((conf for folder in folders(plugin.module) if (conf := folder / "conf").is_dir()), None),
    )


def _reading(plugin: Plugin) -> reading.Reading:
    try:
        if "." not in plugin.attribute:
            return reading.read(plugin.module, plugin.attribute)
    except OutOfSight:
        pass
    return probe.probe(plugin.module, plugin.attribute, plugin.version)


def _check_entry(plugin: Plugin) -> None:
    if not _NAME.fullmatch(plugin.name):
        raise Broken(f"the name {plugin.name!r} cannot stand in a configuration; use letters, digits and _")
    if not _TARGET.fullmatch(plugin.target):
        raise Broken(f"the entry point {plugin.target!r} is not of the form package.module:Attribute")


def _check_names(kind: str, found: reading.Reading) -> None:
    taken = [argument.name for argument in found.arguments if argument.name in RESERVED[kind]]
    if taken:
        raise Broken(f"its signature uses names that belong to bigopt: {', '.join(taken)}")
