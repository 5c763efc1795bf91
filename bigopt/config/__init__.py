"""The configuration: composed by Hydra, completed from signatures, checked before anything heavy is imported."""

from __future__ import annotations

from typing import Any

_HOMES = {"Checked": "checked", "Step": "checked", "check": "checks", "resumed": "resume"}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    """Loads a part when it is first asked for, so that `--help` starts without OmegaConf."""
    if name not in _HOMES:
        raise AttributeError(f"module 'bigopt.config' has no attribute {name!r}")
    from importlib import import_module

    module = import_module(f"bigopt.config.{_HOMES[name]}")
    globals().update({word: getattr(module, word) for word, home in _HOMES.items() if home == _HOMES[name]})
    return globals()[name]
