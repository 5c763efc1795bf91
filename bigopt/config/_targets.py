"""``_target_`` names code to run, so it is refused wherever nobody declared that code may be named there."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from bigopt.config._complete import find
from bigopt.config.groups import NONE, PLUGINS, STEPS

TRUSTED = ("hydra_plugins.", "hydra._internal.core_plugins.")
"""What Hydra itself may be told to build: its plugins, which are installed, not named by a configuration."""

_KEYS = ("_target_", "_convert_", "_recursive_", "_partial_", "_args_")


def refused(cfg: Mapping[str, Any]) -> list[str]:
    """One line for every ``_target_`` that may not be there.

    Allowed are: a model whose name is ``custom`` (it says aloud that it imports the user's code), also as teacher or
    source of a transfer, and arguments that a plugin declares as ``Callable``.
    """
    problems = []
    for path, mapping in _mappings(cfg, ()):
        found = [key for key in _KEYS if key in mapping]
        if not found or _custom_model(path, mapping) or _declared(cfg, path):
            continue
        place = ".".join([*path, found[0]])
        problems.append(
            f"{place}: got {mapping[found[0]]!r}, refused: code is only imported by model=custom and by plugin "
            "arguments that take a callable"
        )
    return problems


def refused_by_hydra(hydra: Mapping[str, Any]) -> list[str]:
    """The same for Hydra's own settings, where only installed Hydra plugins may be built."""
    problems = []
    for path, mapping in _mappings(hydra, ("hydra",)):
        target = mapping.get("_target_")
        if target is not None and not str(target).startswith(TRUSTED):
            problems.append(f"{'.'.join(path)}._target_: got {target!r}, refused: it is no installed Hydra plugin")
    return problems


def _custom_model(path: tuple[str, ...], mapping: Mapping[str, Any]) -> bool:
    return mapping.get("name") == "custom" and (path == ("model",) or path[:1] == ("transfer",))


def _declared(cfg: Mapping[str, Any], path: tuple[str, ...]) -> bool:
    """Whether the plugin argument that holds this path takes a callable."""
    group = path[0] if path else ""
    if group not in PLUGINS or not isinstance(cfg.get(group), Mapping):
        return False
    if group in STEPS:
        if len(path) < 3 or not isinstance(cfg[group].get(path[1]), Mapping):
            return False
        name, argument = cfg[group][path[1]].get("plugin") or path[1], path[2]
    else:
        if len(path) < 2:
            return False
        name, argument = cfg[group].get("name", NONE), path[1]
    plugin = find(group, name)
    arguments = plugin.arguments if plugin is not None and plugin.arguments is not None else []
    return any(known.name == argument and "Callable" in known.annotation for known in arguments)


def _mappings(value: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Mapping[str, Any]]]:
    if isinstance(value, Mapping):
        yield path, value
        for key, item in value.items():
            yield from _mappings(item, (*path, str(key)))
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            yield from _mappings(item, (*path, str(index)))
