"""Going on with a run: its own configuration counts, and what the command line says must not contradict it."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

from bigopt.config.groups import GLOBAL, PLUGINS, SETTINGS, STEPS
from bigopt.vocabulary.errors import RequestError

CONTROL = (
    ("resume",),
    ("cache",),
    ("tracking",),
    ("budget",),
    ("trainer", "workers"),
    ("trainer", "checkpoint_seconds"),
)
"""Keys that may change when a run goes on: they do not change what it computes."""

_ABSENT = object()
_Path = tuple[str, ...]


def resumed(
    saved: Mapping[str, Any], asked: Mapping[str, Any], plain: Mapping[str, Any], lines: Sequence[str] = ()
) -> dict[str, Any]:
    """The saved configuration with the run-control keys of this start.

    Args:
        saved: what the run was started with.
        asked: what this command line makes of the configuration.
        plain: what an empty command line makes of it; what does not differ from it was not asked for, unless named.
        lines: the command line's overrides; the keys they name count even where they equal the default.

    Raises:
        RequestError: something else than run control differs; one line each.
    """
    before, wanted, unasked = _leaves(saved), _leaves(asked), _leaves(plain)
    named = [path for line in lines if (path := _named(line)) is not None]
    changed = {
        path: value
        for path, value in wanted.items()
        if value != unasked.get(path, _ABSENT) or any(path[: len(name)] == name for name in named)
    }
    differing = [path for path in changed if not _control(path) and changed[path] != before.get(path, _ABSENT)]
    steps = [group for group in STEPS if _other_steps(group, saved, asked, plain, named)]
    if differing or steps:
        raise RequestError(_problems(differing, steps, saved, asked, before, changed))
    result: dict[str, Any] = copy.deepcopy(dict(saved))
    for path, value in changed.items():
        if _control(path):
            _set(result, path, value)
    return result


def _named(line: str) -> _Path | None:
    """The path that an override names; for a choice of plugin its name, since its arguments are not named."""
    key = line.lstrip("+~").partition("=")[0]
    if key in PLUGINS:
        return (key,) if key in STEPS else (key, "name")
    return None if key in SETTINGS or key in GLOBAL or key.startswith("hydra") else tuple(key.split("."))


def _other_steps(
    group: str, saved: Mapping[str, Any], asked: Mapping[str, Any], plain: Mapping[str, Any], named: Sequence[_Path]
) -> bool:
    """Whether other steps, or another order of steps, are asked for."""
    wanted = list(asked.get(group) or {})
    return ((group,) in named or wanted != list(plain.get(group) or {})) and wanted != list(saved.get(group) or {})


def _problems(
    differing: Sequence[_Path],
    steps: Sequence[str],
    saved: Mapping[str, Any],
    asked: Mapping[str, Any],
    before: Mapping[_Path, Any],
    changed: Mapping[_Path, Any],
) -> list[str]:
    """One line for every difference; arguments of another plugin are not listed beside it."""
    swapped = {path[0] for path in differing if path[1:] == ("name",)} | set(steps)
    end = "; leave it out to go on, or start a new run"
    lines = [
        f"{group}: the run has [{','.join(saved.get(group) or {})}], got [{','.join(asked.get(group) or {})}]{end}"
        for group in steps
    ]
    for path in differing:
        if path[0] not in swapped or path[1:] == ("name",):
            has = before.get(path, _ABSENT)
            shown = "no such key" if has is _ABSENT else repr(has)
            lines.append(f"{'.'.join(path)}: the run has {shown}, got {changed[path]!r}{end}")
    return lines


def _control(path: _Path) -> bool:
    return any(path[: len(control)] == control for control in CONTROL)


def _leaves(value: Any, path: _Path = ()) -> dict[_Path, Any]:
    """Every scalar, list and empty mapping by its path."""
    if isinstance(value, Mapping) and (value or not path):
        found: dict[_Path, Any] = {}
        for key, item in value.items():
            found |= _leaves(item, (*path, str(key)))
        return found
    return {path: value}


def _set(config: dict[str, Any], path: _Path, value: Any) -> None:
    for key in path[:-1]:
        config = config.setdefault(key, {})
    config[path[-1]] = value
