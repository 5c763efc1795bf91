"""Tells tracking of every epoch, and whoever draws of everything."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from bigopt.vocabulary.run import Progress


class Relay:
    """A progress that hands everything on (implements :class:`bigopt.vocabulary.run.Progress`).

    Args:
        shown: who draws; None for nobody.
        on_epoch: told of stage, epoch and values at every epoch's end.
    """

    def __init__(self, shown: Progress | None, on_epoch: Callable[[str, int, Mapping[str, float]], None]) -> None:
        self.shown = shown
        self.on_epoch = on_epoch

    def start(self, name: str, total: int) -> None:
        """Work of ``total`` steps begins."""
        if self.shown is not None:
            self.shown.start(name, total)

    def advance(self, steps: int = 1, **values: float) -> None:
        """Some steps are done."""
        if self.shown is not None:
            self.shown.advance(steps, **values)

    def stop(self) -> None:
        """The work that was started last is over."""
        if self.shown is not None:
            self.shown.stop()

    def epoch(self, stage: str, epoch: int, values: Mapping[str, float]) -> None:
        """An epoch ended; whoever draws may raise ``Pruned``."""
        self.on_epoch(stage, epoch, values)
        if self.shown is not None:
            self.shown.epoch(stage, epoch, values)
