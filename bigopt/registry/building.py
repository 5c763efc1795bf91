"""Imports the one plugin that was chosen, calls it with checked arguments, and checks what it returned."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import reduce
from importlib import import_module
from typing import Any

from bigopt.registry.binding import bind
from bigopt.registry.discovery import get
from bigopt.registry.plugin import Plugin
from bigopt.registry.results import check_result
from bigopt.vocabulary.errors import RequestError


def load(kind: str, name: str) -> Callable[..., Any]:
    """The plugin's class or function; imports its module and no other plugin's.

    Raises:
        RequestError: unknown name, or a broken plugin, with the reason.
    """
    plugin = get(kind, name)
    if plugin.problem is not None:
        raise RequestError(plugin.problem)
    try:
        target: Any = reduce(getattr, plugin.attribute.split("."), import_module(plugin.module))
    except (Exception, SystemExit) as error:
        raise RequestError(f"{_head(plugin)}: {type(error).__name__}: {error}{_remedy(plugin, error)}") from error
    if not callable(target):
        raise RequestError(f"{_head(plugin)}: {plugin.target} is not callable")
    return target  # type: ignore[no-any-return]


def build(
    kind: str, name: str, arguments: Mapping[str, Any], context: Mapping[str, Any] | None = None, path: str = ""
) -> Any:
    """What the plugin makes of these arguments.

    Args:
        kind: a key of ``GROUPS``.
        name: the plugin.
        arguments: what the configuration says.
        context: values for arguments of the signature that are unset, that is missing or None.
        path: where the arguments stand in the configuration, for messages; None takes the plugin's kind.

    Raises:
        RequestError: unknown or broken plugin, wrong arguments (all of them), or a result that is not of the kind.
    """
    path = path or kind
    plugin = get(kind, name)
    target = load(kind, name)
    context = context or {}
    given = {**arguments}
    for argument in plugin.arguments or ():
        if given.get(argument.name) is None and context.get(argument.name) is not None:
            given[argument.name] = context[argument.name]
    bound = bind(plugin, given, path)
    absent = [a.name for a in plugin.arguments or () if a.required and a.name not in bound]
    if absent:
        known = ", ".join(map(str, context)) or "nothing"
        raise RequestError([f"{path}.{name}: missing; the data give {known}" for name in absent])
    try:
        made = target(**bound)
    except RequestError as error:
        raise RequestError([_located(line, plugin, path) for line in error.problems]) from error
    except ValueError as error:
        raise RequestError(f"{path}: {kind} plugin {name!r} refused its arguments: {error}") from error
    return check_result(kind, name, made)


def _located(line: str, plugin: Plugin, path: str) -> str:
    """A plugin names its arguments without knowing where they stand in the configuration."""
    known = {argument.name for argument in plugin.arguments or ()}
    head = line.partition(":")[0].partition(".")[0].partition("[")[0].strip()
    return f"{path}.{line}" if head in known else line


def _head(plugin: Plugin) -> str:
    return f"{plugin.kind} plugin {plugin.name!r} ({plugin.distribution} {plugin.version}) cannot be imported"


def _remedy(plugin: Plugin, error: BaseException) -> str:
    """How to get a missing package: through the distribution's own extra where it has one."""
    if not isinstance(error, ModuleNotFoundError) or not error.name:
        return ""
    return f"; try: pip install {error.name.partition('.')[0]}"
