"""Whether the steps of a pipeline can follow each other, from what their source says, without importing it."""

from __future__ import annotations

from collections.abc import Sequence

from bigopt.config.checked import Step


def order_problems(steps: Sequence[Step]) -> list[str]:
    return []
