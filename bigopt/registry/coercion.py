"""One value against one type."""

from __future__ import annotations

import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import is_dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from bigopt.registry.suggest import suggestion
from bigopt.vocabulary.errors import RequestError

Bind = Callable[[Any, Mapping[str, Any], str], dict[str, Any]]
_SCALARS = (bool, int, float, str, Path)
_ITEMS = (list, tuple, set, frozenset)


def coerce(value: Any, form: Any, where: str, problems: list[str], bind: Bind) -> Any:
    """The value in the type's own form: exact, or converted where nothing is lost.

    Args:
        value: what the configuration says, in plain types.
        form: the type; ``Any`` takes everything.
        where: the value's place in the configuration.
        problems: gets one line for each thing that is wrong.
        bind: checks a mapping against a dataclass.
    """
    origin, members = typing.get_origin(form), typing.get_args(form)
    if form is Any:
        return value
    if origin in (typing.Union, types.UnionType):
        return _union(value, form, where, problems, bind)
    if origin is typing.Literal:
        if not any(value == choice and type(value) is type(choice) for choice in members):
            problems.append(f"{wrong(value, form, where)}{suggestion(value, members)}")
        return value
    kind = origin or form
    if kind is None or kind is type(None):
        return value if value is None else _refuse(value, form, where, problems)
    if not isinstance(kind, type):
        return value  # a type variable, a callable, …: nothing that a configuration could be held to
    if is_dataclass(kind):
        return _dataclass(value, kind, where, problems, bind)
    if issubclass(kind, Mapping):
        return _mapping(value, form, members, where, problems, bind)
    if issubclass(kind, Iterable) and kind not in (str, bytes) and not issubclass(kind, Enum):
        return _items(value, form, kind, members, where, problems, bind)
    return _scalar(value, kind, where, problems)


def wrong(value: Any, form: Any, where: str) -> str:
    """The line that says what was got and what is expected."""
    got = "null" if value is None else f"{value!r:.60} ({type(value).__name__})"
    return f"{where}: got {got}, expected {describe(form)}"


def describe(form: Any) -> str:
    """A type in the words of a configuration file."""
    origin, members = typing.get_origin(form), typing.get_args(form)
    if form is None or form is type(None):
        return "null"
    if form is Any:
        return "a value"
    if origin in (typing.Union, types.UnionType):
        return " or ".join(describe(member) for member in sorted(members, key=lambda m: m is type(None)))
    if origin is typing.Literal:
        words = ["null" if choice is None else str(choice) for choice in members]
        return words[0] if len(words) == 1 else f"one of {', '.join(words)}"
    kind = origin or form
    if issubclass(kind, Enum):
        return f"one of {', '.join(member.name for member in kind)}"
    if is_dataclass(kind) or issubclass(kind, Mapping):
        return "a mapping"
    if kind is tuple and members and ... not in members:
        return f"a list of {len(members)}: {', '.join(map(describe, members))}"
    if issubclass(kind, Iterable) and kind is not str:
        return f"a list of {describe(members[0])}" if members and members[0] is not Any else "a list"
    return "a path" if kind is Path else str(kind.__name__)


def _refuse(value: Any, form: Any, where: str, problems: list[str]) -> Any:
    problems.append(wrong(value, form, where))
    return value


def _scalar(value: Any, kind: type, where: str, problems: list[str]) -> Any:
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if kind is Path and isinstance(value, str):
        return Path(value)
    if issubclass(kind, Enum) and not isinstance(value, kind):
        return _enum(value, kind, where, problems)
    if kind not in _SCALARS and not issubclass(kind, Enum):
        return value
    fits = isinstance(value, kind) and (kind is bool or not isinstance(value, bool))
    return value if fits else _refuse(value, kind, where, problems)


def _enum(value: Any, kind: type[Enum], where: str, problems: list[str]) -> Any:
    for member in kind:
        if value in (member.name, member.value):
            return member
    problems.append(f"{wrong(value, kind, where)}{suggestion(value, [member.name for member in kind])}")
    return value


def _dataclass(value: Any, kind: Any, where: str, problems: list[str], bind: Bind) -> Any:
    if isinstance(value, kind):
        return value
    if not isinstance(value, Mapping):
        return _refuse(value, kind, where, problems)
    try:
        return kind(**bind(kind, value, where))
    except RequestError as error:
        problems += error.problems
    return value


def _mapping(value: Any, form: Any, members: tuple[Any, ...], where: str, problems: list[str], bind: Bind) -> Any:
    if not isinstance(value, Mapping):
        return _refuse(value, form, where, problems)
    keys, values = members if len(members) == 2 else (Any, Any)
    return {
        coerce(key, keys, f"{where}.{key}", problems, bind): coerce(item, values, f"{where}.{key}", problems, bind)
        for key, item in value.items()
    }


def _items(
    value: Any, form: Any, kind: type, members: tuple[Any, ...], where: str, problems: list[str], bind: Bind
) -> Any:
    if not isinstance(value, _ITEMS):
        return _refuse(value, form, where, problems)
    fixed = kind is tuple and bool(members) and ... not in members
    if fixed and len(value) != len(members):
        problems.append(f"{wrong(value, form, where)}; it has {len(value)}")
        return value
    inner = members if fixed else [members[0] if members else Any] * len(value)
    items = [coerce(item, inner[i], f"{where}[{i}]", problems, bind) for i, item in enumerate(value)]
    if issubclass(kind, set | frozenset):
        return kind(items)
    return tuple(items) if kind is tuple or (isinstance(value, tuple) and kind is not list) else items


def _union(value: Any, form: Any, where: str, problems: list[str], bind: Bind) -> Any:
    """The first member that takes the value as it is, or else the first that can convert it."""
    close: list[list[str]] = []
    converted: list[Any] = []
    for member in typing.get_args(form):
        found: list[str] = []
        result = coerce(value, member, where, found, bind)
        if not found and type(result) is type(value) and result == value:
            return result
        if not found:
            converted.append(result)
        elif not any(line.startswith(f"{where}: ") for line in found):
            close.append(found)  # the member is a list or a mapping, as the value is, and something inside is wrong
    if converted:
        return converted[0]
    choices = [choice for member in typing.get_args(form) for choice in typing.get_args(member)]
    problems += close[0] if close else [f"{wrong(value, form, where)}{_near(value, choices)}"]
    return value


def _near(value: Any, choices: Sequence[Any]) -> str:
    return (
        suggestion(value, [choice for choice in choices if isinstance(choice, str)]) if isinstance(value, str) else ""
    )
