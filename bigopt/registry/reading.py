"""Reads a plugin's signature, summary and facts from its source."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from bigopt.registry.plugin import Argument
from bigopt.registry.source import Broken
from bigopt.registry.syntax import Found, Module, OutOfSight, load, resolve
from bigopt.registry.values import annotation, literal, value_of

_WITHOUT_INIT = {"object", "Generic", "Protocol", "ABC"}
_HARMLESS = {"final", "runtime_checkable", "override", "no_type_check", "overload"}
_Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Reading:
    """What was found out about a plugin.

    Attributes:
        summary: first line of its docstring.
        arguments: its signature.
        facts: class attributes with literal values; of a function, its module's ``SPACE`` as ``space``.
        variadic: whether it takes further arguments.
    """

    summary: str = ""
    arguments: list[Argument] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)
    variadic: bool = False


def read(module: str, attribute: str) -> Reading:
    """Reads a class or a function without importing anything.

    Raises:
        Broken: module or attribute missing, or no valid Python.
        OutOfSight: only running the code can tell its signature.
    """
    home = module.partition(".")[0]
    found = resolve(load(module), attribute, home)
    node = found.node
    if isinstance(node, _Function):
        arguments, variadic = _function(node, found.module, home, skip=0)
        return Reading(_summary(node, found.module), arguments, _module_facts(found, home), variadic)
    if isinstance(node, ast.ClassDef):
        holder, constructor = _constructor(found, home)
        arguments, variadic = ([], False) if constructor is None else _function(constructor, holder, home, skip=1)
        return Reading(_summary(node, found.module), arguments, _facts(found, home), variadic)
    raise OutOfSight(f"{attribute} is assigned")


def first_line(docstring: str | None) -> str:
    """The summary in a docstring."""
    return (docstring or "").strip().partition("\n")[0].strip()


def _summary(node: _Function | ast.ClassDef, module: Module) -> str:
    return first_line(ast.get_docstring(node)) or first_line(ast.get_docstring(module.tree))


def _function(node: _Function, module: Module, home: str, skip: int) -> tuple[list[Argument], bool]:
    """Arguments that can be given by name, after the first ``skip``; and whether any further ones can."""
    if isinstance(node, ast.AsyncFunctionDef):
        raise Broken(f"{node.name} is a coroutine function")
    if any(_last(decorator) not in _HARMLESS for decorator in node.decorator_list):
        raise OutOfSight(f"{node.name} is decorated")
    positional = [*node.args.posonlyargs, *node.args.args]
    refuse_positional([a.arg for a in node.args.posonlyargs[skip:]])
    defaults: list[ast.expr | None] = [None] * (len(positional) - len(node.args.defaults))
    pairs = list(zip(positional, [*defaults, *node.args.defaults], strict=True))[skip:]
    pairs += zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True)
    arguments = [
        Argument(
            arg.arg,
            annotation(arg.annotation, module, home),
            None if default is None else literal(default, module, home),
            default is None,
        )
        for arg, default in pairs
    ]
    return arguments, node.args.kwarg is not None


def refuse_positional(names: list[str]) -> None:
    """Arguments come from a configuration, by name.

    Raises:
        Broken: there are arguments that cannot be given by name.
    """
    if names:
        raise Broken(f"positional-only arguments cannot be configured: {', '.join(names)}")


def _constructor(found: Found, home: str) -> tuple[Module, _Function | None]:
    """The ``__init__`` that a class has or inherits; None for that of ``object``."""
    for level, owner in _ancestry(found, home, strict=True):
        assert isinstance(owner, ast.ClassDef)
        if owner.decorator_list and any(_last(item) not in _HARMLESS for item in owner.decorator_list):
            raise OutOfSight(f"{owner.name} is decorated")
        if any(keyword.arg != "metaclass" or _last(keyword.value) != "ABCMeta" for keyword in owner.keywords):
            raise OutOfSight(f"{owner.name} has class arguments")
        for node in owner.body:
            names = _bound(node)
            if "__new__" in names or ("__init__" in names and not isinstance(node, _Function)):
                raise OutOfSight(f"{owner.name} makes its instances in its own way")
        own = [node for node in owner.body if isinstance(node, _Function) and node.name == "__init__"]
        if own:
            return level, own[-1]
        if any(isinstance(node, ast.If | ast.Try | ast.With) for node in owner.body):
            raise OutOfSight(f"{owner.name} has conditions")
    return found.module, None


def _facts(found: Found, home: str) -> dict[str, Any]:
    """Public class attributes with literal values; the nearest class has the word."""
    facts: dict[str, Any] = {}
    for module, owner in _ancestry(found, home, strict=False):
        seen = set(facts)
        for node in owner.body:
            value = value_of(node)
            for name in _bound(node):
                if name in seen or name.startswith("_") or value is None:
                    continue
                try:
                    facts[name] = literal(value, module, home)
                except OutOfSight:
                    facts.pop(name, None)
    return facts


def _module_facts(found: Found, home: str) -> dict[str, Any]:
    """What stands in for a class attribute beside a function: ``SPACE`` of its module, as ``space``."""
    facts: dict[str, Any] = {}
    for node in found.module.tree.body:
        value = value_of(node)
        if "SPACE" in _bound(node) and value is not None:
            try:
                facts["space"] = literal(value, found.module, home)
            except OutOfSight:
                facts.pop("space", None)
    return facts


def _ancestry(found: Found, home: str, strict: bool) -> Iterator[tuple[Module, ast.ClassDef]]:
    """A class and its bases, nearest first; bases elsewhere are passed over, or out of sight where ``strict``."""
    assert isinstance(found.node, ast.ClassDef)
    yield found.module, found.node
    for base in found.node.bases:
        expression = base.value if isinstance(base, ast.Subscript) else base
        if _last(expression) in _WITHOUT_INIT:
            continue
        try:
            parent = resolve(found.module, ast.unparse(expression), home)
            if not isinstance(parent.node, ast.ClassDef):
                raise OutOfSight(f"base {ast.unparse(base)} is computed")
        except (OutOfSight, Broken) as error:
            if strict:
                raise OutOfSight(str(error)) from None
            continue
        yield from _ancestry(parent, home, strict)


def _bound(node: ast.stmt) -> list[str]:
    if isinstance(node, _Function | ast.ClassDef):
        return [node.name]
    if isinstance(node, ast.Assign):
        return [target.id for target in node.targets if isinstance(target, ast.Name)]
    if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
        return [node.target.id]
    return []


def _last(node: ast.expr) -> str:
    """Last part of a dotted name, also of a call of it."""
    if isinstance(node, ast.Call):
        node = node.func
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else ""
