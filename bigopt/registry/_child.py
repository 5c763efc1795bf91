"""Runs in a process of its own: imports one plugin and writes its signature as JSON to standard output."""

from __future__ import annotations

import ast
import inspect
import json
import os
import sys
from functools import reduce
from importlib import import_module
from typing import Any


def main(module: str, attribute: str) -> None:
    """Imports ``module`` and describes ``attribute``; whatever the plugin prints goes to standard error."""
    answer = os.dup(1)
    os.dup2(2, 1)
    try:
        said = describe(module, attribute)
    except BaseException as error:  # also SystemExit: a plugin that exits is broken, not done
        said = {"error": f"{type(error).__name__}: {error}".partition("\n")[0]}
    with os.fdopen(answer, "w", encoding="utf-8") as stream:
        json.dump(said, stream)
    os._exit(0)  # a plugin's threads and exit hooks are of no interest


def describe(module: str, attribute: str) -> dict[str, Any]:
    """Signature, summary and facts of an imported plugin, in plain types."""
    target = reduce(getattr, attribute.split("."), import_module(module))
    if not callable(target):
        raise TypeError(f"{attribute} is not callable")
    arguments, positional, variadic = [], [], False
    for parameter in inspect.signature(target).parameters.values():
        if parameter.kind is parameter.POSITIONAL_ONLY:
            positional.append(parameter.name)
        elif parameter.kind is parameter.VAR_KEYWORD:
            variadic = True
        elif parameter.kind is not parameter.VAR_POSITIONAL:
            arguments.append([parameter.name, _annotation(parameter.annotation), *_default(parameter.default)])
    return {
        "summary": (inspect.getdoc(target) or "").strip().partition("\n")[0],
        "arguments": arguments,
        "positional": positional,
        "variadic": variadic,
        "facts": _facts(target) if inspect.isclass(target) else {},
        "files": _files(target),
    }


def _files(target: Any) -> list[str]:
    """Source files that the signature comes from: those of the bases, or of what a decorator wraps."""
    parts = target.__mro__ if inspect.isclass(target) else (target, inspect.unwrap(target))
    modules = {getattr(part, "__module__", None) for part in parts}
    files = {getattr(sys.modules.get(name or ""), "__file__", None) for name in modules}
    return sorted(file for file in files if file and os.path.isfile(file))


def _annotation(annotation: Any) -> str:
    if annotation is inspect.Parameter.empty:
        return ""
    return annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)


def _default(default: Any) -> tuple[str | None, bool]:
    """The default's text, and whether that text is a literal; no text where there is no default."""
    if default is inspect.Parameter.empty:
        return None, False
    return repr(default), _is_literal(default)


def _is_literal(value: Any) -> bool:
    try:
        return bool(ast.literal_eval(repr(value)) == value)
    except Exception:
        return False


def _facts(target: type) -> dict[str, str]:
    facts: dict[str, str] = {}
    for owner in target.__mro__:
        for name, value in vars(owner).items():
            if not name.startswith("_") and name not in facts and _is_literal(value):
                facts[name] = repr(value)
    return facts


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
