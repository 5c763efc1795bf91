"""What a run leaves for its readers: the ledger of stages, report.json, tables, plots and the HTML page."""

from __future__ import annotations

from typing import Any

_HOMES = {
    "Ledger": "ledger",
    "Stage": "stage",
    "environment": "machine",
    "judge_budget": "budget",
    "paired_interval": "interval",
    "render_html": "html",
    "render_summary": "terminal",
    "render_table": "terminal",
    "resolvable": "interval",
    "value_of": "stage",
}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    """Loads a part of the package when it is first asked for: showing a report needs no torch."""
    if name not in _HOMES:
        raise AttributeError(f"module 'bigopt.report' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"bigopt.report.{_HOMES[name]}"), name)
