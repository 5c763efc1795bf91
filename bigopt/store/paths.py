"""Paths that come from outside."""

from __future__ import annotations

from pathlib import Path

from bigopt.vocabulary.errors import RequestError


def inside(root: str | Path, path: str | Path) -> Path:
    """A path from outside, resolved (links too), if it lies under ``root``.

    Args:
        root: folder that must not be left.
        path: relative to ``root``, or absolute.

    Raises:
        RequestError: the path leads out of ``root``, or is none.
    """
    try:
        base = Path(root).resolve()
        resolved = (base / path).resolve()
    except (OSError, RuntimeError, ValueError) as error:
        raise RequestError(f"{str(path)!r}: not a usable path ({error})") from None
    if resolved != base and base not in resolved.parents:
        raise RequestError(f"{str(path)!r}: leads out of {base}")
    return resolved
