"""How a wrong word is answered: what was got, what is allowed, and the nearest valid one."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The known word that is most like this one, if any is."""
    found = get_close_matches(str(word), list(known), n=1, cutoff=0.6)
    return found[0] if found else None


def suggestion(word: str, known: Iterable[str], prefix: str = "") -> str:
    """``; did you mean …?`` with the nearest known word, or nothing."""
    near = nearest(word, known)
    return f"; did you mean {prefix}{near}?" if near else ""


def listed(known: Iterable[str], most: int = 30) -> str:
    """The known words as a list for a message."""
    words = sorted(map(str, known))
    return ", ".join(words[:most]) + (f", … ({len(words)} in all)" if len(words) > most else "")
