"""When a checkpoint is due, and what happens when it cannot be written."""

from __future__ import annotations

import logging
import time

from bigopt.store import Generations
from bigopt.train import checkpoint, ddp
from bigopt.train.signals import Signals
from bigopt.vocabulary.errors import Interrupted

log = logging.getLogger(__name__)

NOTHING, PERIODIC = 0, 1


class Keeper:
    """Writes checkpoints of one fit: every so many seconds, and when a signal asks to stop.

    Args:
        generations: where they go.
        key: of the fit, so that a checkpoint of another one is never taken for it.
        seconds: between two periodic checkpoints.
        signals: asked whether to stop.

    Attributes:
        failures: one line for each kind of failure to write; each is said once.
    """

    def __init__(self, generations: Generations, key: str, seconds: float, signals: Signals) -> None:
        self.generations = generations
        self.key = key
        self.seconds = seconds
        self.signals = signals
        self.failures: list[str] = []
        self._written_at = time.monotonic()
        self._asked = NOTHING

    def due(self) -> bool:
        """Whether to write now; the same answer on every rank."""
        asked = NOTHING
        if self.signals.received is not None:
            asked = self.signals.received + PERIODIC
        elif ddp.rank() == 0 and time.monotonic() - self._written_at >= self.seconds:
            asked = PERIODIC
        self._asked = ddp.agree(asked)
        return self._asked != NOTHING

    def keep(self, state: checkpoint.State) -> None:
        """Writes a checkpoint, and stops if that was the reason for it.

        A checkpoint that cannot be written is a warning, and training goes on: the last good one is still there.

        Raises:
            Interrupted: a signal asked to stop.
        """
        if ddp.rank() == 0:
            self._write(state)
        self._written_at = time.monotonic()
        if self._asked > PERIODIC:
            ddp.barrier()
            raise Interrupted(self._asked - PERIODIC)

    def _write(self, state: checkpoint.State) -> None:
        try:
            checkpoint.save(self.generations, state, self.key)
        except OSError as error:
            text = f"a checkpoint could not be written to {self.generations.folder}: {error.strerror or error}"
            if text not in self.failures:
                self.failures.append(text)
                log.warning("%s; training goes on, and the last good checkpoint is kept", text)
