"""The nearest valid word."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


def suggestion(word: object, known: Iterable[object]) -> str:
    """``; did you mean …?`` with up to three known words that are most like this one, or nothing."""
    near = get_close_matches(str(word), [str(item) for item in known], n=3, cutoff=0.6)
    return f"; did you mean {' or '.join(near)}?" if near else ""
