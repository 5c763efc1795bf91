"""Checks settings against a signature, and says everything that is wrong with them at once."""

from __future__ import annotations

import inspect
import sys
import typing
from collections.abc import Callable, Collection, Mapping
from dataclasses import MISSING, Field, fields, is_dataclass
from typing import Any

from bigopt.registry.annotations import parse
from bigopt.registry.coercion import coerce, describe
from bigopt.registry.plugin import FILLED, Argument, Computed, Plugin
from bigopt.registry.suggest import suggestion
from bigopt.vocabulary.errors import RequestError

Schema = Plugin | Callable[..., Any]
"""A plugin, a function, a class, or a dataclass."""


def bind(
    schema: Schema, settings: Mapping[str, Any], path: str, later: Collection[str] | None = None
) -> dict[str, Any]:
    """The settings as keyword arguments: checked, and converted where that loses nothing.

    Args:
        schema: whose signature counts; of a :class:`Plugin`, nothing is imported.
        settings: values by argument name; what is left out keeps its default.
        path: where the settings stand in the configuration, for messages; empty for its root.
        later: arguments that may still be missing (or None), since something else fills them in; None means those
            that a run fills in for this kind of plugin.

    Returns:
        The given arguments: integers for float become float, lists for tuple become tuples, mappings for a dataclass
        become its instances. Arguments left to be filled in are not among them.

    Raises:
        RequestError: one line for each problem.
    """
    if isinstance(schema, Plugin):
        later = FILLED.get(schema.kind, ()) if later is None else later
        bound, problems = bind_plugin(schema, settings, path, later)
    else:
        bound, problems = _bind(*_signature(schema), settings, path, later or ())
    if problems:
        raise RequestError(problems)
    return bound


def bind_plugin(
    plugin: Plugin,
    settings: Mapping[str, Any],
    path: str,
    later: Collection[str] = (),
    namespace: Mapping[str, Any] | None = None,
) -> tuple[dict[str, Any], list[str]]:
    """As :func:`bind`, with the problems returned.

    Args:
        plugin: whose signature counts.
        settings: values by argument name.
        path: where they stand in the configuration.
        later: arguments that may still be missing.
        namespace: names of the plugin's module, where it is imported: with it, its own dataclasses and enums count.

    Raises:
        RequestError: the plugin is broken.
    """
    if plugin.problem is not None:
        raise RequestError(plugin.problem)
    known = {argument.name: argument for argument in plugin.arguments or ()}
    return _bind(known, plugin.variadic, namespace or {}, settings, path, later)


def _bind(
    known: Mapping[str, Argument],
    variadic: bool,
    namespace: Mapping[str, Any],
    settings: Mapping[str, Any],
    path: str,
    later: Collection[str],
) -> tuple[dict[str, Any], list[str]]:
    problems: list[str] = []
    bound: dict[str, Any] = {}
    for key, value in settings.items():
        where = f"{path}.{key}" if path else str(key)
        argument = known.get(key)
        if argument is None and not variadic:
            problems.append(_unknown(where, known))
        elif argument is None:
            bound[key] = value
        elif not (value is None and _unset(argument, later, namespace)):
            bound[key] = _checked(argument, value, where, namespace, problems)
    for name, argument in known.items():
        if argument.required and name not in settings and name not in later:
            where = f"{path}.{name}" if path else name
            problems.append(f"{where}: missing, expected {describe(_form(argument, namespace))}")
    return bound, problems


def _unset(argument: Argument, later: Collection[str], namespace: Mapping[str, Any]) -> bool:
    """Whether None means that the argument was left out: it is filled in later, or only code knows its default."""
    return argument.name in later or (
        isinstance(argument.default, Computed) and not _takes_none(_form(argument, namespace))
    )


def _takes_none(form: Any) -> bool:
    return form is None or form is type(None) or type(None) in typing.get_args(form)


def _checked(argument: Argument, value: Any, where: str, namespace: Mapping[str, Any], problems: list[str]) -> Any:
    if value is None and argument.default is None and not argument.required:
        return None  # `x: int = None` is not what it says, but what it means is clear
    return coerce(value, _form(argument, namespace), where, problems, bind)


def _form(argument: Argument, namespace: Mapping[str, Any]) -> Any:
    return parse(argument.annotation, namespace)


def _unknown(where: str, known: Mapping[str, Argument]) -> str:
    name = where.rpartition(".")[2]
    allowed = f"one of {', '.join(known)}" if known else "no arguments"
    return f"{where}: unknown, expected {allowed}{suggestion(name, known)}"


def _signature(schema: Callable[..., Any]) -> tuple[dict[str, Argument], bool, Mapping[str, Any]]:
    """Arguments by name, whether any further ones are taken, and where names in annotations are looked up."""
    entries: list[tuple[Argument, Any]]
    if is_dataclass(schema):
        entries = [(_field(entry), entry.type) for entry in fields(schema) if entry.init]
        variadic = False
    else:
        parameters = inspect.signature(schema).parameters.values()
        by_name = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
        entries = [(_parameter(entry), entry.annotation) for entry in parameters if entry.kind in by_name]
        variadic = any(entry.kind is entry.VAR_KEYWORD for entry in parameters)
    namespace = dict(vars(sys.modules.get(schema.__module__, object)))
    for _, annotation in entries:
        namespace.update(_classes(annotation))
    return {argument.name: argument for argument, _ in entries}, variadic, namespace


def _classes(annotation: Any) -> dict[str, Any]:
    """The classes inside an annotation that is no text, by name."""
    found = {annotation.__name__: annotation} if isinstance(annotation, type) else {}
    for member in typing.get_args(annotation):
        found |= _classes(member)
    return found


def _field(entry: Field[Any]) -> Argument:
    required = entry.default is MISSING and entry.default_factory is MISSING
    default = Computed("…") if entry.default is MISSING else entry.default
    return Argument(entry.name, _text(entry.type), None if required else default, required)


def _parameter(entry: inspect.Parameter) -> Argument:
    required = entry.default is entry.empty
    annotation = "" if entry.annotation is entry.empty else _text(entry.annotation)
    return Argument(entry.name, annotation, None if required else entry.default, required)


def _text(annotation: Any) -> str:
    return annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)
