"""The picture of a sensitivity scan: how much each layer costs at each strength."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from bigopt.report.theme import INK, RC

if TYPE_CHECKING:
    from matplotlib.figure import Figure

WRITTEN = 400
"""Cells up to which the drops are written into the picture."""


def draw_sensitivity(rows: Sequence[Mapping[str, Any]], metric: str) -> Figure:
    """Layers down, strengths across, the drop as colour; a cell without a number stays white.

    Args:
        rows: ``layer``, ``strength`` and ``drop`` of every cell; at least one.
        metric: what the drop is of.
    """
    import matplotlib
    import numpy as np
    from matplotlib.figure import Figure

    layers = list(dict.fromkeys(str(row["layer"]) for row in rows))
    strengths = sorted({float(row["strength"]) for row in rows})
    drops = np.full((len(layers), len(strengths)), np.nan)
    for row in rows:
        drops[layers.index(str(row["layer"])), strengths.index(float(row["strength"]))] = row["drop"]
    top = float(np.nanmax(drops)) if np.isfinite(drops).any() else 0.0
    with matplotlib.rc_context(RC):
        figure = Figure(figsize=(2.8 + 0.55 * len(strengths), 1.3 + 0.28 * len(layers)), layout="constrained")
        axes = figure.subplots()
        image = axes.imshow(drops, cmap="Blues", vmin=0.0, vmax=max(top, 1e-9), aspect="auto")
        axes.set_xticks(range(len(strengths)), [f"{strength:g}" for strength in strengths])
        axes.set_yticks(range(len(layers)), [layer.removeprefix("net.") for layer in layers])
        axes.set_xlabel("strength")
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        figure.colorbar(image, label=f"drop of {metric}", shrink=0.9)
        for (y, x), drop in np.ndenumerate(drops) if drops.size <= WRITTEN else ():
            if np.isfinite(drop):
                colour = "white" if top > 0 and drop > 0.6 * top else INK
                axes.text(x, y, f"{drop:.3f}".replace("0.", ".", 1), ha="center", va="center", color=colour, size=7)
    return figure
