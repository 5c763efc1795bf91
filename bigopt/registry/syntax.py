"""One module as its syntax tree: what its names stand for, followed through imports, nothing executed."""

from __future__ import annotations

import ast
import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

from bigopt.registry.source import Broken, Source, find, find_spec

DEPTH = 8
"""How many imports, aliases or bases are followed before a signature counts as out of sight."""

_OWN = "bigopt"
_OPAQUE = ("__getattr__",)


class OutOfSight(Exception):
    """Only running the code can tell."""


@dataclass(frozen=True)
class Module:
    """A parsed module.

    Attributes:
        source: where it came from.
        tree: its syntax.
        names: every binding at its top level, in order, with whether it stands under a condition.
        starred: whether names may come from elsewhere: ``import *`` or a module ``__getattr__``.
    """

    source: Source
    tree: ast.Module
    names: dict[str, list[tuple[ast.stmt, bool]]]
    starred: bool

    def binding(self, name: str) -> ast.stmt:
        """The statement that a name stands for once the module is imported.

        Raises:
            OutOfSight: it depends on a condition, or comes from elsewhere.
            Broken: there is no such name.
        """
        bindings = self.names.get(name, [])
        if not bindings:
            if self.starred:
                raise OutOfSight(f"{name} comes from elsewhere")
            raise Broken(f"module {self.source.module!r} has no {name!r}")
        if len(bindings) > 1 and any(conditional for _, conditional in bindings):
            raise OutOfSight(f"{name} is bound under a condition")
        return bindings[-1][0]


@dataclass(frozen=True)
class Found:
    """A binding with the module in which it stands."""

    module: Module
    node: ast.stmt


def load(module: str) -> Module:
    """The syntax of a module, parsed once per version of its file.

    Raises:
        Broken: it is not there, or is no valid Python.
        OutOfSight: it has no Python source.
    """
    source = find(module)
    if source.data is None:
        raise OutOfSight(f"{module} has no Python source")
    return _parse(source)


@lru_cache(maxsize=256)
def _parse(source: Source) -> Module:
    try:
        tree = ast.parse(source.data or b"", filename=source.path)
    except SyntaxError as error:
        line = f"{os.path.basename(source.path)}, line {error.lineno}" if error.lineno else source.path
        raise Broken(f"{line}: {error.msg}") from None
    except (ValueError, RecursionError, MemoryError) as error:
        raise Broken(f"{source.path}: {error}") from None
    names: dict[str, list[tuple[ast.stmt, bool]]] = {}
    for name, node, conditional in _bindings(tree.body, False):
        names.setdefault(name, []).append((node, conditional))
    return Module(source, tree, names, "*" in names or any(name in names for name in _OPAQUE))


def _bindings(body: list[ast.stmt], conditional: bool) -> Iterator[tuple[str, ast.stmt, bool]]:
    for node in body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.name, node, conditional
        elif isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.asname or alias.name.partition(".")[0], node, conditional
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                yield alias.asname or alias.name, node, conditional
        elif isinstance(node, ast.Assign | ast.AnnAssign | ast.AugAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            for part in (part for target in targets for part in ast.walk(target)):
                if isinstance(part, ast.Name) and isinstance(part.ctx, ast.Store):  # `f.kinds = …` binds no f
                    yield part.id, node, conditional
        elif type(node).__name__ == "TypeAlias":  # `type X = …`, Python 3.12
            yield node.name.id, node, conditional  # type: ignore[attr-defined]
        else:
            for inner in _blocks(node):
                yield from _bindings(inner, True)


def _blocks(node: ast.stmt) -> Iterator[list[ast.stmt]]:
    for field in ("body", "orelse", "finalbody"):
        yield getattr(node, field, [])
    for handler in (*getattr(node, "handlers", []), *getattr(node, "cases", [])):
        yield handler.body


def resolve(module: Module, name: str, home: str, depth: int = DEPTH) -> Found:
    """The class, function or assignment behind a dotted name, followed through imports of the same distribution.

    Args:
        module: where the name is used.
        name: such as ``Base`` or ``layers.Base``.
        home: top-level package of the distribution; others are not opened, except the core.
        depth: how many more imports to follow.

    Raises:
        OutOfSight: it leads elsewhere.
        Broken: it is not there.
    """
    head, _, rest = name.partition(".")
    node = module.binding(head)
    if isinstance(node, ast.Import | ast.ImportFrom):
        if depth <= 0:
            raise OutOfSight(f"{name} is imported through too many modules")
        return _imported(module, node, head, rest, home, depth)
    if rest:
        raise OutOfSight(f"{name} is an attribute")
    return Found(module, node)


def _imported(module: Module, node: ast.Import | ast.ImportFrom, head: str, rest: str, home: str, depth: int) -> Found:
    if isinstance(node, ast.Import):
        alias = next(a for a in node.names if (a.asname or a.name.partition(".")[0]) == head)
        if alias.asname:
            target, name = alias.name, rest
        else:  # `import a.b` binds a: the longest module in the dotted name is the home of the rest
            dotted = f"{head}.{rest}"
            target = alias.name if dotted.startswith(f"{alias.name}.") else head
            name = dotted[len(target) + 1 :]
    else:
        alias = next(a for a in node.names if (a.asname or a.name) == head)
        target, name = absolute(module.source, node), f"{alias.name}.{rest}".strip(".")
    if target.partition(".")[0] not in (home, _OWN):
        raise OutOfSight(f"{head} comes from {target}")
    first, _, deeper = name.partition(".")
    holder = load(_lazy_home(target, first))
    if first not in holder.names and find_spec(f"{target}.{first}") is not None:  # a submodule
        holder, name = load(f"{target}.{first}"), deeper
    if not name:
        raise OutOfSight(f"{head} is a module")
    return resolve(holder, name, home, depth - 1)


def _lazy_home(target: str, name: str) -> str:
    """Where ``bigopt.Part`` and the other words of the vocabulary stand: the package loads them when asked for."""
    if target == _OWN:
        for node, _ in load(target).names.get("_HOMES", []):
            homes = ast.literal_eval(node.value) if isinstance(node, ast.Assign) else {}
            if name in homes:
                return f"{_OWN}.vocabulary.{homes[name]}"
    return target


def absolute(source: Source, node: ast.ImportFrom) -> str:
    """Dotted name of the module that an import statement names."""
    if not node.level:
        return node.module or ""
    parts = source.module.split(".")
    above = parts[: len(parts) - node.level + source.package]
    return ".".join([*above, *([node.module] if node.module else [])])
