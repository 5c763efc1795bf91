"""Search: spaces, studies, workers and what they leave. Between the command line and the pipeline."""

from __future__ import annotations

from typing import Any

_HOMES = {
    "Plan": "plan",
    "Request": "request",
    "Result": "plan",
    "Space": "space",
    "Storage": "storage",
    "Task": "plan",
    "run_sweep": "running",
}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    """Loads a part of the package when it is first asked for."""
    if name not in _HOMES:
        raise AttributeError(f"module 'bigopt.search' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"bigopt.search.{_HOMES[name]}"), name)
