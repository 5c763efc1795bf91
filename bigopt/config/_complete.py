"""Fills a configuration file up with what its schema has and the file does not say.

The schema is the plugin's signature, or the settings dataclass; a file holds opinions and comments only.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any

from bigopt.config.groups import NONE, PLUGINS, SETTINGS, SLOTS, STEPS
from bigopt.registry import FILLED, Argument, Plugin, discover
from bigopt.vocabulary.settings import StepOptions

MISSING = "???"
_PLAIN = (bool, int, float, str, type(None))


def complete(group: str, name: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of one choice with every missing key added; what is given stays and comes first.

    Args:
        group: config group.
        name: the choice's own name, and its plugin's unless the settings name another.
        settings: what the file says.
    """
    if group in SETTINGS:
        return _merge(settings, defaults_of(SETTINGS[group]))
    if group in STEPS:
        options = defaults_of(StepOptions) if group == "compression" else {"plugin": None}
        plugin = find(group, settings.get("plugin") or name)
        return _merge(_merge(settings, _arguments(plugin)), options)
    named = {"name": settings.get("name", name)}
    rest = {"weights": None} if group == "model" else {}
    if group in SLOTS and named["name"] == NONE:
        return {**named, **settings}
    return _merge(_merge({**named, **settings}, _arguments(find(group, named["name"]))), rest)


def find(group: str, name: Any) -> Plugin | None:
    """The plugin of this name for a config group; None for an unknown one."""
    return discover()[PLUGINS[group]].get(str(name)) if "@" not in str(name) else None


def defaults_of(schema: type[Any]) -> dict[str, Any]:
    """Defaults of a settings dataclass as plain values."""
    instance = schema()
    return {field.name: plain(getattr(instance, field.name)) for field in fields(schema)}


def plain(value: Any) -> Any:
    """The value in the types that YAML has."""
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [plain(item) for item in value]
    return value


def takes_mapping(argument: Argument) -> bool:
    """Whether an argument may be a mapping whose keys are its own business."""
    return any(word in argument.annotation for word in ("dict", "Dict", "Mapping"))


def is_plain(value: Any) -> bool:
    """Whether YAML can hold this default."""
    if isinstance(value, Mapping):
        return all(isinstance(key, str) and is_plain(item) for key, item in value.items())
    if isinstance(value, tuple | list):
        return all(is_plain(item) for item in value)
    return isinstance(value, _PLAIN)


def _arguments(plugin: Plugin | None) -> dict[str, Any]:
    """Defaults of a plugin's arguments; ``???`` where it has none."""
    if plugin is None or plugin.arguments is None:
        return {}
    filled = FILLED.get(plugin.kind, ())
    return {argument.name: _default(argument, argument.name in filled) for argument in plugin.arguments}


def _default(argument: Argument, filled: bool) -> Any:
    if filled:
        return None
    if argument.required:
        return {} if takes_mapping(argument) else MISSING
    if argument.default is None and takes_mapping(argument):
        return {}  # so that its keys can be given one by one; read as null while empty
    return plain(argument.default) if is_plain(argument.default) else None


def _merge(settings: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """Settings with missing keys added, also inside mappings that both have."""
    merged = dict(settings)
    for key, default in defaults.items():
        if key not in merged or (merged[key] is None and default == {}):
            merged[key] = default
        elif isinstance(merged[key], Mapping) and isinstance(default, Mapping):
            merged[key] = _merge(merged[key], default)
    return merged
