"""When a parameter counts, and which combinations are forbidden."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bigopt.vocabulary.errors import RequestError

_COMPARISONS: dict[str, Callable[[Any, Any], bool]] = {
    "<=": operator.le,
    ">=": operator.ge,
    "!=": operator.ne,
    "<": operator.lt,
    ">": operator.gt,
}
_COMPARED = re.compile(r"\s*(<=|>=|!=|<|>)\s*(.+)")
ABSENT = object()
"""Stands for a parameter that the trial does not have."""


@dataclass(frozen=True)
class Rule:
    """What must hold of one other parameter or configuration key.

    Attributes:
        name: of the other one.
        comparison: ``in`` for one of the values (also: a list that contains one of them), or a comparison with one.
        values: to compare with.
    """

    name: str
    comparison: str
    values: tuple[Any, ...]

    def holds(self, assigned: Mapping[str, Any]) -> bool:
        """Whether the rule holds; never for what is not there."""
        value = assigned.get(self.name, ABSENT)
        if value is ABSENT:
            return False
        if self.comparison == "in":
            return any(_same(item, wanted) for item in _items(value) for wanted in self.values)
        if self.comparison == "!=":
            return not any(_same(item, self.values[0]) for item in _items(value))
        if isinstance(value, bool) or not isinstance(value, int | float):
            return False
        return _COMPARISONS[self.comparison](value, self.values[0])

    def __str__(self) -> str:
        """The rule as people write it."""
        values = ", ".join(map(str, self.values))
        return f"{self.name} in [{values}]" if self.comparison == "in" else f"{self.name} {self.comparison} {values}"


def rules(given: Any, path: str) -> tuple[Rule, ...]:
    """Rules from a mapping of names to a value, several values, or a comparison such as ``"> 3"``; all must hold.

    Args:
        given: the mapping.
        path: where it stands in the configuration, for messages.

    Raises:
        RequestError: it is no such mapping.
    """
    if not isinstance(given, Mapping) or not given:
        raise RequestError(f"{path}: got {given!r}, expected a mapping such as {{optimizer: sgd}}")
    return tuple(_rule(str(name), value, path) for name, value in given.items())


def forbidden(combinations: Sequence[tuple[Rule, ...]], assigned: Mapping[str, Any]) -> bool:
    """Whether all rules of any combination hold."""
    return any(all(rule.holds(assigned) for rule in combination) for combination in combinations)


def _rule(name: str, value: Any, path: str) -> Rule:
    compared = _COMPARED.fullmatch(value) if isinstance(value, str) else None
    if compared is None:
        values = tuple(value) if isinstance(value, list | tuple) else (value,)
        if not values:
            raise RequestError(f"{path}.{name}: got an empty list, expected at least one value")
        return Rule(name, "in", values)
    sign, text = compared.groups()
    try:
        number: Any = float(text)
    except ValueError:
        if sign != "!=":
            raise RequestError(f"{path}.{name}: got {value!r}, expected a number after {sign}") from None
        number = text.strip()
    return Rule(name, sign, (number,))


def _items(value: Any) -> Sequence[Any]:
    return value if isinstance(value, list | tuple) else (value,)


def _same(value: Any, wanted: Any) -> bool:
    """Equal, or written alike: a choice ``1e-3`` may be a text on one side and a number on the other."""
    if isinstance(value, bool) or isinstance(wanted, bool):
        return str(value).lower() == str(wanted).lower()
    return value == wanted or str(value) == str(wanted)
