"""Whether the steps of a pipeline can follow each other, from what their classes declare, without importing them."""

from __future__ import annotations

from collections.abc import Sequence

from bigopt.config._complete import find
from bigopt.config.checked import Step

TRAINABLE, FROZEN = "trainable", "frozen"


def order_problems(steps: Sequence[Step]) -> list[str]:
    """One line for every step that finds the model in a state that it cannot work on."""
    problems: list[str] = []
    frozen_by: str | None = None
    for step in steps:
        plugin = find("compression", step.plugin)
        facts = plugin.facts if plugin is not None else {}
        if frozen_by is not None and facts.get("needs", TRAINABLE) == TRAINABLE:
            problems.append(
                f"compression: {step.name} needs a trainable model, but {frozen_by} leaves it frozen; "
                f"put {step.name} before {frozen_by}"
            )
        elif facts.get("leaves", TRAINABLE) == FROZEN:
            frozen_by = step.name
    return problems
