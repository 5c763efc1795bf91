"""Plain text for terminals: colours where there is one, none of it where output is read by a program."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable

_CODES = {"bold": "1", "dim": "2", "red": "31", "green": "32", "yellow": "33", "cyan": "36"}

Paint = Callable[[str, str], str]
"""Gives a text the named styles, such as ``bold cyan``."""


def painter() -> Paint:
    """Colours for a terminal; none for a pipe, with ``NO_COLOR``, or on a terminal that knows none."""
    plain = not sys.stdout.isatty() or bool(os.environ.get("NO_COLOR")) or os.environ.get("TERM") == "dumb"
    return _plain if plain else _painted


def width() -> int:
    """Columns of a line; a pipe gets a fixed width, so that what it reads does not depend on the terminal."""
    return min(max(shutil.get_terminal_size().columns, 40), 140) if sys.stdout.isatty() else 120


def emit(text: str) -> None:
    """Prints a text, whatever the terminal's encoding is, and also where the reader has gone away."""
    stream = sys.stdout
    if hasattr(stream, "reconfigure"):
        stream.reconfigure(errors="replace")
    try:
        print(text, flush=True)
    except BrokenPipeError:  # `bigopt plugins | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _plain(text: str, _styles: str) -> str:
    return text


def _painted(text: str, styles: str) -> str:
    codes = ";".join(_CODES[style] for style in styles.split())
    return f"\033[{codes}m{text}\033[0m"
