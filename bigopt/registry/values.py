"""What expressions in a module's syntax stand for: constants, and types behind aliases."""

from __future__ import annotations

import ast
from typing import Any

from bigopt.registry.annotations import last_name, parse
from bigopt.registry.source import Broken
from bigopt.registry.syntax import DEPTH, Module, OutOfSight, resolve


def value_of(node: ast.stmt) -> ast.expr | None:
    """What a simple assignment to one name assigns; None for anything else."""
    if isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name):
        return node.value
    if isinstance(node, ast.AnnAssign) or type(node).__name__ == "TypeAlias":
        return node.value  # type: ignore[attr-defined,no-any-return]
    return None


def literal(node: ast.expr, module: Module, home: str, depth: int = DEPTH) -> Any:
    """The value of an expression that is a literal, or names a constant.

    Raises:
        OutOfSight: it is neither.
    """
    try:
        return ast.literal_eval(node)
    except (ValueError, TypeError, SyntaxError, RecursionError):
        pass
    if not isinstance(node, ast.Name | ast.Attribute) or depth <= 0:
        raise OutOfSight(f"{ast.unparse(node)} is computed")
    try:
        found = resolve(module, ast.unparse(node), home, depth)
    except Broken:
        raise OutOfSight(f"{ast.unparse(node)} is computed") from None
    value = value_of(found.node)
    if value is None or len(found.module.names.get(last_name(node), [0])) > 1:
        raise OutOfSight(f"{ast.unparse(node)} is computed")
    return literal(value, found.module, home, depth - 1)


def annotation(node: ast.expr | None, module: Module, home: str) -> str:
    """An annotation's source text, with type aliases of the distribution written out."""
    if node is None:
        return ""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        try:
            node = ast.parse(node.value.strip(), mode="eval").body
        except SyntaxError:
            return ""
    return ast.unparse(_Expand(module, home, DEPTH).visit(ast.parse(ast.unparse(node), mode="eval").body))


class _Expand(ast.NodeTransformer):
    """Replaces names of type aliases by what they stand for."""

    def __init__(self, module: Module, home: str, depth: int) -> None:
        self.module, self.home, self.depth = module, home, depth

    def visit_Subscript(self, node: ast.Subscript) -> ast.expr:
        """Leaves the values of ``Literal[…]`` alone."""
        return node if last_name(node.value) == "Literal" else self.generic_visit(node)  # type: ignore[return-value]

    def visit_Name(self, node: ast.Name) -> ast.expr:
        """The alias's own expression, or the name where it is none."""
        if self.depth <= 0 or node.id not in self.module.names or parse(node.id) is not Any:
            return node
        try:
            found = resolve(self.module, node.id, self.home)
        except (OutOfSight, Broken):
            return node
        value = value_of(found.node)
        if value is None:
            return node
        copy = ast.parse(ast.unparse(value), mode="eval").body
        return _Expand(found.module, self.home, self.depth - 1).visit(copy)  # type: ignore[no-any-return]
