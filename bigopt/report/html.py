"""The report as one self-contained page."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def render_html(report: Mapping[str, Any], folder: Path) -> Path:
    """Placeholder until the next commit."""
    return Path(folder) / "report.html"


def draw_or_note(report: Mapping[str, Any], folder: Path) -> list[str]:
    """Draws the page. A fault of the drawing must not cost hours of training: it is warned of, and noted.

    Returns:
        Notes for the report.

    Raises:
        OSError: the page could not be written.
    """
    try:
        render_html(report, folder)
    except OSError:
        raise
    except Exception as problem:
        text = f"report.html could not be drawn: {type(problem).__name__}: {problem}"
        warnings.warn(text, stacklevel=3)
        return [text]
    return []
