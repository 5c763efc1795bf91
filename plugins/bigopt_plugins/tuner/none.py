"""No tuner: a single run, or Hydra's own multirun."""

from __future__ import annotations


def none() -> None:
    """Leaves the search to the command line: a single run, or plain ``-m`` over a grid of overrides."""
