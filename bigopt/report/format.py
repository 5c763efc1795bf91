"""Figures as people read them."""

from __future__ import annotations

import math
from collections.abc import Sequence

NONE = "–"
_SHARES = ("accuracy", "agreement", "macro_f1", "worst_class")
_UNITS = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "K"))


def is_share(metric: str) -> bool:
    """Whether a metric is a share in [0, 1] that people read in per cent."""
    name = metric.rsplit("/", 1)[-1]
    return any(name.startswith(share) for share in _SHARES)


def significant(value: float | None, digits: int = 3) -> str:
    """A number with so many significant digits, never in exponent form between 1e-4 and 1e6."""
    if value is None or not math.isfinite(value):
        return NONE
    if value == 0:
        return "0"
    rounded = float(f"{value:.{digits - 1}e}")  # 0.99996 has the size of 1.00
    size = math.floor(math.log10(abs(rounded)))
    if not -4 <= size < 6:
        return f"{value:.{digits - 1}e}"
    return f"{value:.{max(0, digits - 1 - size)}f}"


def count(value: float | None, unit: str = "") -> str:
    """61706 → ``61.7K``."""
    if value is None:
        return NONE
    for scale, letter in _UNITS:
        if abs(value) >= 0.9995 * scale:
            return f"{significant(value / scale)}{letter}{unit}"
    return f"{value:.0f}{unit}"


def size(value: float | None) -> str:
    """250112 → ``250 KB`` (thousands of bytes)."""
    text = count(value)
    if text == NONE:
        return NONE
    return f"{text[:-1]} {text[-1]}B" if text[-1].isalpha() else f"{text} B"


def milliseconds(value: float | None) -> str:
    """0.1123 → ``0.112 ms``."""
    return NONE if value is None else f"{significant(value)} ms"


def times(value: float | None) -> str:
    """8.31 → ``8.3×``."""
    if value is None:
        return NONE
    return f"{value:.0f}×" if value >= 99.5 else f"{value:.1f}×" if value >= 9.95 else f"{value:.2f}×"


def seconds(value: float | None) -> str:
    """75.2 → ``1 min 15 s``."""
    if value is None:
        return NONE
    if value < 60:
        return f"{value:.1f} s"
    minutes, rest = divmod(round(value), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def metric_text(metric: str, value: float | None) -> str:
    """0.9722 accuracy → ``97.2%``; other metrics with four digits."""
    if value is None:
        return NONE
    return f"{100 * value:.1f}%" if is_share(metric) else significant(value, 4)


def drop_unit(metric: str) -> str:
    """``points`` for shares, nothing for metrics in a unit of their own."""
    return "points" if is_share(metric) else ""


def interval_text(metric: str, interval: Sequence[float] | None) -> str:
    """``[-0.3, 1.1]``, in points for shares; empty without an interval."""
    if interval is None:
        return ""
    low, high = (_drop_number(metric, end) for end in interval)
    return f"[{low}, {high}]"


def drop_text(metric: str, drop: float | None, interval: Sequence[float] | None = None, unit: bool = True) -> str:
    """``0.4 [-0.3, 1.1] points``; positive is worse."""
    if drop is None:
        return NONE
    parts = [_drop_number(metric, drop), interval_text(metric, interval), drop_unit(metric) if unit else ""]
    return " ".join(part for part in parts if part)


def _drop_number(metric: str, value: float) -> str:
    text = f"{100 * value:.1f}" if is_share(metric) else significant(value)
    return "0.0" if text == "-0.0" else text


def shortened(text: str, length: int) -> str:
    """The text with its middle left out where it is longer than this."""
    if len(text) <= length:
        return text
    head = (length - 1) // 2
    return f"{text[:head]}…{text[len(text) - (length - 1 - head) :]}"
