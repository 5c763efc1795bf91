"""The spine: what one run does from its configuration to its report."""

from __future__ import annotations

from typing import Any

__all__ = ["execute"]


def execute(*args: Any, **kwargs: Any) -> dict[str, Any]:
    """Runs one configuration; see :func:`bigopt.pipeline.spine.execute`."""
    from bigopt.pipeline.spine import execute as run

    return run(*args, **kwargs)
