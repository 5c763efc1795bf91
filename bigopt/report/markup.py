"""Small pieces of HTML; every text that comes in is escaped here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from bigopt.report import format as show

ROWS = 200  # of a table that a Part left; its CSV has them all


class Safe(str):
    """Markup that was made here and is not escaped again."""


def text(value: Any) -> str:
    """The value as escaped text."""
    return value if isinstance(value, Safe) else escape(str(value), quote=True)


def cell(figure: Any, below: str = "") -> Safe:
    """A figure with a smaller line under it."""
    return Safe(f"{text(figure)}<small>{text(below)}</small>" if below else text(figure))


def table(heads: Sequence[Any], rows: Iterable[Sequence[Any]], classes: Sequence[str] = (), caption: str = "") -> str:
    """A table in a panel of its own that scrolls where it is too wide.

    Args:
        heads: column heads.
        rows: cells.
        classes: CSS class of each row.
        caption: line under the table.
    """
    head = "".join(f'<th scope="col">{text(name)}</th>' for name in heads)
    body = []
    for index, row in enumerate(rows):
        name = f' class="{text(classes[index])}"' if index < len(classes) and classes[index] else ""
        body.append(f"<tr{name}>" + "".join(f"<td>{text(value)}</td>" for value in row) + "</tr>")
    under = f"<caption>{text(caption)}</caption>" if caption else ""
    return (
        f'<div class="panel"><table>{under}<thead><tr>{head}</tr></thead><tbody>{"".join(body)}</tbody></table></div>'
    )


def records(rows: Sequence[Mapping[str, Any]], file: str) -> str:
    """A table of mappings, its first rows only where it is long."""
    heads = list(dict.fromkeys(key for row in rows for key in row))
    left_out = f"; the first {ROWS} of {len(rows)} rows" if len(rows) > ROWS else ""
    cells = [[value(row.get(head)) for head in heads] for row in rows[:ROWS]]
    return table(heads, cells, caption=f"{file}{left_out}")


def value(item: Any) -> str:
    """A JSON value as people read it."""
    if item is None:
        return show.NONE
    if isinstance(item, float):
        return show.significant(item, 4)
    if isinstance(item, list):
        return ", ".join(value(part) for part in item)
    return str(item)


def facts(mapping: Mapping[str, Any], heads: Sequence[str] = ("", "")) -> str:
    """Names and values, nested ones under dotted names."""
    return table(heads, [(name, value(item)) for name, item in dotted(mapping)])


def dotted(mapping: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """Leaves of nested mappings with their dotted names."""
    leaves: list[tuple[str, Any]] = []
    for name, item in mapping.items():
        path = f"{prefix}.{name}" if prefix else str(name)
        leaves += dotted(item, path) if isinstance(item, Mapping) else [(path, item)]
    return leaves


def lines(items: Iterable[str]) -> str:
    """A plain list of lines."""
    return '<ul class="lines">' + "".join(f"<li>{text(item)}</li>" for item in items) + "</ul>"


def folded(title: str, inner: str) -> str:
    """Something that opens on demand."""
    return f"<details><summary>{text(title)}</summary>{inner}</details>"


def yaml_text(mapping: Mapping[str, Any]) -> str:
    """A mapping as escaped YAML."""
    import yaml

    return f"<pre>{text(yaml.safe_dump(dict(mapping), sort_keys=False, allow_unicode=True))}</pre>"
