"""Imports the one plugin that was chosen, calls it with checked arguments, and checks what it returned."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Mapping
from functools import reduce
from importlib import import_module
from typing import Any

from bigopt.registry.binding import bind_plugin
from bigopt.registry.discovery import get
from bigopt.registry.plugin import FILLED, Plugin
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
        path: where the arguments stand in the configuration, for messages; empty takes the plugin's kind.

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
    namespace = vars(sys.modules.get(getattr(target, "__module__", ""), object))
    bound, problems = bind_plugin(plugin, given, path, FILLED.get(kind, ()), dict(namespace))
    offered = f"the data give {', '.join(context) or 'nothing'}"
    problems += [
        f"{path}.{argument.name}: missing; {offered}"
        for argument in plugin.arguments or ()
        if argument.required and argument.name not in bound and argument.name in FILLED.get(kind, ())
    ]
    if problems:
        raise RequestError(problems)
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
    """What to do about a failed import; a missing package comes with the distribution's extra, if one names it."""
    if "torchvision" in str(error) and not isinstance(error, ModuleNotFoundError):
        return "; see bigopt doctor"
    if not isinstance(error, ModuleNotFoundError) or not error.name:
        return ""
    missing = error.name.partition(".")[0]
    for line in _requirements(plugin.distribution):
        found = re.match(r"([\w.-]+).*extra\s*==\s*['\"]([\w.-]+)", line)
        if found and re.sub(r"[-.]", "_", found[1]).lower() == missing.lower():
            return f"; try: pip install '{plugin.distribution}[{found[2]}]'"
    return f"; is the package {missing} installed?"


def _requirements(name: str) -> list[str]:
    from importlib.metadata import PackageNotFoundError, distribution

    try:
        return distribution(name).requires or []
    except PackageNotFoundError:
        return []
