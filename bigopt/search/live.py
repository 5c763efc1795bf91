"""One line that says how far a sweep is."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from typing import TextIO

from bigopt.search.configurations import Configuration, counts
from bigopt.search.outcome import best
from bigopt.search.plan import Plan

PLAIN_EVERY = 10.0
"""Least seconds between two lines where there is no terminal; a new best value is always said."""


class Live:
    """Draws the line: in place on a terminal, as lines of their own elsewhere.

    Args:
        plan: the sweep.
        total: configurations in all, None where nobody knows.
        stream: where to; None is standard error.
    """

    def __init__(self, plan: Plan, total: int | None, stream: TextIO | None = None) -> None:
        self.plan = plan
        self.total = total
        self.stream = stream if stream is not None else sys.stderr
        self.began = time.monotonic()
        self.before: int | None = None
        self.best: int | None = None
        self._drawn = 0.0
        self._shown = ""

    def show(self, known: Sequence[Configuration], last: bool = False) -> None:
        """Draws what has changed."""
        line = self.line(known)
        top = best(known, self.plan.objectives)
        fresh = top is not None and top.number != self.best
        self.best = top.number if top is not None else None
        now = time.monotonic()
        if self.stream.isatty():
            self.stream.write(f"\r\033[K{line}" + ("\n" if last else ""))
            self.stream.flush()
        elif line != self._shown and (fresh or last or now - self._drawn > PLAIN_EVERY):
            self._drawn, self._shown = now, line
            print(line, file=self.stream, flush=True)

    def line(self, known: Sequence[Configuration]) -> str:
        """Done, running, pruned, failed, best so far, time left."""
        found = counts(known)
        done = found.get("complete", 0)
        ended = done + found.get("pruned", 0) + found.get("failed", 0)
        self.before = ended if self.before is None else self.before
        parts = [f"trials {ended}" + (f"/{self.total}" if self.total is not None else "")]
        parts += [f"{found[name]} {name}" for name in ("running", "paused", "pruned", "failed") if found.get(name)]
        top = best(known, self.plan.objectives)
        if top is not None:
            values = zip(self.plan.objectives, top.last.values, strict=True)
            parts.append("best " + "  ".join(f"{m.metric} {v:.5g}" for m, v in values) + f" (trial {top.number})")
        elif (reported := self._reported(known)) is not None:
            parts.append(f"so far {self.plan.objectives[0].metric} {reported:.5g}")
        left = self._left(ended)
        return "  ".join(parts + ([f"{left} left"] if left else []))

    def _reported(self, known: Sequence[Configuration]) -> float | None:
        monitor = self.plan.objectives[0]
        values = [value for each in known for value in each.last.intermediate_values.values()]
        return (max if monitor.mode == "max" else min)(values, default=None)

    def _left(self, ended: int) -> str:
        finished = ended - (self.before or 0)
        if self.total is None or finished < 1 or ended >= self.total:
            return ""
        seconds = (time.monotonic() - self.began) / finished * (self.total - ended)
        return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"
