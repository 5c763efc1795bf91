"""From the text of an annotation to a type, without running any code."""

from __future__ import annotations

import ast
import types
import typing
from collections.abc import Collection, Iterable, Mapping, MutableMapping, MutableSequence, Sequence
from dataclasses import is_dataclass
from enum import Enum
from functools import reduce
from operator import or_
from pathlib import Path
from typing import Any

_KNOWN: dict[str, Any] = {
    **{kind.__name__: kind for kind in (int, float, str, bool, list, tuple, dict, set, frozenset, Path)},
    **{kind.__name__: kind for kind in (Sequence, Mapping, Iterable, Collection, MutableMapping, MutableSequence)},
    **{"List": list, "Tuple": tuple, "Dict": dict, "Set": set, "FrozenSet": frozenset},
    **{"None": None, "Any": Any, "object": Any},
}
_WRAPPERS = ("Annotated", "Final", "ClassVar", "Required", "NotRequired")


def parse(text: str, namespace: Mapping[str, Any] | None = None) -> Any:
    """The type that an annotation's text names; whatever is not understood is ``Any``.

    Args:
        text: an annotation's source, such as ``Literal['l1', 'l2'] | None``.
        namespace: where further names are looked up (enums and dataclasses of an imported plugin).
    """
    if not text:
        return Any
    try:
        return _form(ast.parse(text.strip(), mode="eval").body, namespace or {})
    except (SyntaxError, ValueError, TypeError, RecursionError):
        return Any


def _form(node: ast.expr, namespace: Mapping[str, Any]) -> Any:
    if isinstance(node, ast.Constant):
        if isinstance(node.value, str):
            return parse(node.value, namespace)
        return None if node.value is None else Any
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
        return _union([_form(node.left, namespace), _form(node.right, namespace)])
    if isinstance(node, ast.Subscript):
        return _subscript(node, namespace)
    if isinstance(node, ast.Name | ast.Attribute):
        name = last_name(node)
        return _KNOWN[name] if name in _KNOWN else _foreign(namespace.get(name, Any))
    return Any


def _subscript(node: ast.Subscript, namespace: Mapping[str, Any]) -> Any:
    name = last_name(node.value)
    items = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
    if name == "Literal":
        return typing.Literal[tuple(ast.literal_eval(item) for item in items)]
    if name in _WRAPPERS:
        return _form(items[0], namespace)
    if name == "Optional":
        return _union([_form(items[0], namespace), None])
    if name == "Union":
        return _union([_form(item, namespace) for item in items])
    base = _KNOWN.get(name)
    if not isinstance(base, type):
        return Any
    return types.GenericAlias(base, tuple(_item(item, namespace) for item in items))


def _item(node: ast.expr, namespace: Mapping[str, Any]) -> Any:
    return ... if isinstance(node, ast.Constant) and node.value is ... else _form(node, namespace)


def _union(members: Sequence[Any]) -> Any:
    return Any if any(member is Any for member in members) else reduce(or_, members)


def _foreign(found: Any) -> Any:
    """A name of the plugin's own module, where the checker knows what to do with it."""
    if isinstance(found, type):
        return found if is_dataclass(found) or issubclass(found, Enum) else Any
    return found if typing.get_origin(found) is not None else Any


def last_name(node: ast.expr) -> str:
    """``Literal`` of both ``Literal`` and ``typing.Literal``; empty for anything else."""
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else ""
