"""Names of modules as users write them: ``features.conv1``, ``blocks.*``, ``*.attention``."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Sequence
from fnmatch import fnmatchcase

SHOWN = 20
"""Names that a refusal lists."""


def fits(name: str, patterns: Iterable[str]) -> bool:
    """Whether a module's name fits one of the patterns; the network's own ``net.`` may be left out of them.

    ``*`` and ``?`` stand for any characters, dots included.
    """
    short = name.removeprefix("net.")
    return any(fnmatchcase(name, pattern) or fnmatchcase(short, pattern) for pattern in patterns)


def unknown(
    argument: str,
    patterns: Iterable[str],
    names: Sequence[str],
    what: str = "module",
    fitting: Callable[[str, Iterable[str]], bool] = fits,
) -> list[str]:
    """One line for each pattern that fits none of the names, with the nearest of them or the first ones."""
    short = [name.removeprefix("net.") for name in names if name]
    lines = []
    for pattern in patterns:
        if not any(fitting(name, [pattern]) for name in names):
            near = difflib.get_close_matches(pattern.removeprefix("net."), short, n=3)
            listed = ", ".join(near or short[:SHOWN])
            lines.append(f"{argument}: {pattern!r} fits no {what}; {'near' if near else 'some'}: {listed}")
    return lines
