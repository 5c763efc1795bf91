"""What is optimised: names of report values with the direction that is better."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from bigopt.vocabulary.errors import RequestError

Mode = Literal["max", "min"]


@dataclass(frozen=True)
class Monitor:
    """A metric and the direction in which it gets better.

    Attributes:
        metric: name such as ``val/accuracy``.
        mode: ``max`` or ``min``.
    """

    metric: str
    mode: Mode

    def better(self, new: float, old: float) -> bool:
        """Whether ``new`` is strictly better; a value that is not a number never is."""
        return new > old if self.mode == "max" else new < old

    def drop(self, value: float, reference: float) -> float:
        """How much worse ``value`` is than ``reference``; positive means worse."""
        return reference - value if self.mode == "max" else value - reference


def parse_objective(objective: Mapping[str, str]) -> tuple[Monitor, ...]:
    """Monitors in the order of the configuration; the first one judges drops and selects epochs.

    Raises:
        RequestError: empty, or a direction other than ``max`` and ``min``.
    """
    if not objective:
        raise RequestError("objective: got {}, expected at least one entry such as {val/accuracy:max}")
    wrong = [
        f"objective.{name}: got {mode!r}, expected max or min"
        for name, mode in objective.items()
        if mode not in ("max", "min")
    ]
    if wrong:
        raise RequestError(wrong)
    return tuple(Monitor(name, "max" if mode == "max" else "min") for name, mode in objective.items())
