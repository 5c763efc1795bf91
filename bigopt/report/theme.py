"""Colours and type of the report's pictures."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# The page swaps these three for its own, so that pictures fit light and dark; the others are readable on both.
INK = "#1f2430"
MUTED = "#6b7282"
LINE = "#d9dde5"
ACCENT = "#3b82f6"
SECOND = "#f08c2e"
THIRD = "#14a37f"
CONTROL = "#9aa3b2"
SERIES = (ACCENT, SECOND, THIRD, "#d0488f", "#8b5cf6", "#b38a1b", "#0ea5b7")

RC: Any = {
    "text.parse_math": False,  # names may hold dollar signs
    "svg.fonttype": "none",
    "svg.hashsalt": "bigopt",  # the same report gives the same file
    "font.family": "sans-serif",
    "font.size": 9.5,
    "text.color": INK,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": MUTED,
    "axes.linewidth": 0.8,
    "axes.grid": False,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "grid.color": LINE,
    "grid.linewidth": 0.8,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
}


def tidy(axes: Axes) -> None:
    """A light grid behind the data, and no frame above and to the right."""
    axes.grid(True, axis="y")
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
