"""``bigopt plugins``: every installed plugin with its arguments, read from source; none is imported."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from textwrap import fill
from typing import Any

from bigopt.cli._terminal import Paint, emit, painter, width
from bigopt.registry import FILLED, GROUPS, Argument, Computed, Plugin, catalogue
from bigopt.vocabulary.errors import RequestError


def main(argv: list[str]) -> int:
    """Lists plugins.

    Args:
        argv: the words after ``plugins``.

    Returns:
        0, or 2 for an unknown kind or flag.
    """
    parser = argparse.ArgumentParser("bigopt plugins", description="Lists installed plugins with their arguments.")
    parser.add_argument("kind", nargs="?", help=f"only this kind: {', '.join(GROUPS)}")
    parser.add_argument("--json", action="store_true", help="as JSON, for programs")
    try:
        args = parser.parse_args(argv)
    except SystemExit as stop:
        return int(stop.code or 0)
    try:
        found = {kind: list(catalogue(kind).values()) for kind in ([args.kind] if args.kind else GROUPS)}
    except RequestError as error:
        print(f"bigopt: {error}", file=sys.stderr)
        return 2
    if args.json:
        emit(json.dumps([as_json(plugin) for plugins in found.values() for plugin in plugins], indent=2))
    else:
        emit("\n".join(_lines(found, painter(), width())))
    return 0


def as_json(plugin: Plugin) -> dict[str, Any]:
    """A plugin in JSON's own types.

    ``default`` is absent from a required argument, and from one whose default only the plugin's code knows: that one
    has ``computed``, its text. ``filled`` marks arguments that the run fills in unless they are set.
    """
    return {
        "kind": plugin.kind,
        "name": plugin.name,
        "distribution": plugin.distribution,
        "version": plugin.version,
        "target": plugin.target,
        "summary": plugin.summary,
        "arguments": None if plugin.arguments is None else [_argument(plugin, item) for item in plugin.arguments],
        "more_arguments": plugin.variadic,
        "error": plugin.error,
    }


def _argument(plugin: Plugin, argument: Argument) -> dict[str, Any]:
    said: dict[str, Any] = {"name": argument.name, "type": argument.annotation, "required": argument.required}
    if isinstance(argument.default, Computed):
        said["computed"] = argument.default.text
    elif not argument.required:
        try:
            said["default"] = json.loads(json.dumps(argument.default, allow_nan=False))
        except (TypeError, ValueError):  # bytes, complex numbers, keys that are no texts
            said["computed"] = repr(argument.default)
    return {**said, "filled": _filled(plugin, argument)}


def _filled(plugin: Plugin, argument: Argument) -> bool:
    return argument.name in FILLED.get(plugin.kind, ())


def _lines(found: dict[str, list[Plugin]], paint: Paint, columns: int) -> Iterator[str]:
    broken = 0
    for number, (kind, plugins) in enumerate(found.items()):
        yield ("\n" if number else "") + paint(kind, "bold") + ("" if plugins else ": none installed")
        for plugin in plugins:
            broken += plugin.error is not None
            yield f"  {paint(plugin.name, 'bold cyan')}  {paint(f'{plugin.distribution} {plugin.version}', 'dim')}"
            yield from _body(plugin, paint, columns)
    if broken:
        yield f"\n{paint(f'{broken} broken', 'red')}: choosing one gives its reason; the others are not affected."


def _body(plugin: Plugin, paint: Paint, columns: int) -> Iterator[str]:
    if plugin.error is not None:
        yield paint(_wrapped(f"broken: {plugin.error}", columns), "red")
        return
    if plugin.summary:
        yield _wrapped(plugin.summary, columns)
    for argument in plugin.arguments or ():
        yield _wrapped(_shown(plugin, argument), columns, 6)
    if plugin.variadic:
        yield _wrapped("and any further arguments", columns, 6)


def _shown(plugin: Plugin, argument: Argument) -> str:
    typed = f"{argument.name}: {argument.annotation}" if argument.annotation else argument.name
    if _filled(plugin, argument):
        source = "from the data" if plugin.kind == "models" else "from the run"
        return f"{typed}  ({source})"
    return f"{typed}  (required)" if argument.required else f"{typed} = {argument.default!r}"


def _wrapped(text: str, columns: int, indent: int = 4) -> str:
    return fill(
        text, columns, initial_indent=" " * indent, subsequent_indent=" " * (indent + 4), break_long_words=False
    )
