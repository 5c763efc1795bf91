"""bigopt: smaller, faster or better models, with the evidence."""

from __future__ import annotations

from typing import Any

_HOMES = {
    "Batch": "batch",
    "BigoptError": "errors",
    "Data": "data",
    "Fit": "part",
    "History": "run",
    "Monitor": "objective",
    "Network": "network",
    "Output": "batch",
    "Part": "part",
    "RequestError": "errors",
    "Role": "batch",
    "Run": "run",
    "RunFailed": "errors",
    "Schema": "data",
    "Split": "data",
    "Task": "task",
    "TensorSplit": "data",
    "Tuner": "tuner",
}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    """Loads a word of the vocabulary when it is first asked for, so that the command line starts without torch."""
    if name not in _HOMES:
        raise AttributeError(f"module 'bigopt' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"bigopt.vocabulary.{_HOMES[name]}"), name)
