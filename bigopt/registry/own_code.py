"""Code of the user's own, imported by its name."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any


def import_own(module: str, attribute: str) -> Any:
    """What a module calls ``attribute`` (dots reach inside). **This imports and runs the user's code.**

    The working directory is looked into as well, which console scripts do not search.

    Raises:
        Exception: whatever the code raises, or ``AttributeError`` where there is nothing of that name.
    """
    here = str(Path.cwd())
    added = here not in sys.path
    if added:
        sys.path.append(here)
    try:
        found = importlib.import_module(module)
    finally:
        if added:
            sys.path.remove(here)
    for part in attribute.split("."):
        found = getattr(found, part)
    return found
