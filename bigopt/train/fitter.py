"""The only way to train."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bigopt.train.job import Job, auxiliary_modules, wanted_taps
from bigopt.train.seeds import seed_all
from bigopt.train.signals import Signals
from bigopt.vocabulary.errors import RequestError
from bigopt.vocabulary.part import Part
from bigopt.vocabulary.run import History, Run

if TYPE_CHECKING:
    pass


class Fitter:
    """Trains, remembers and resumes; implements :class:`bigopt.vocabulary.part.Fit`.

    Args:
        folder: the run's folder; each fit is kept in ``fits/<NNN>-<name>/`` there.
        store: stage cache for fits with ``share=True``; None for none.
        signals: asked after every step whether to stop.
    """

    def __init__(self, folder: Path, store: Any = None, signals: Signals | None = None) -> None:
        self.folder = Path(folder)
        self.store = store
        self.signals = signals if signals is not None else Signals()
        self.ordinal = 0
        self.epochs = 0

    def __call__(
        self,
        run: Run,
        epochs: int | None = None,
        *,
        lr: float | None = None,
        name: str = "fit",
        parts: Sequence[Part] | None = None,
        share: bool = False,
    ) -> History:
        """Trains ``run.model`` in place and leaves it at its best validation epoch; see :class:`Fit`."""
        epochs = run.settings.trainer.max_epochs if epochs is None else epochs
        if epochs < 0:
            raise RequestError(f"epochs: got {epochs}, expected 0 or more")
        if epochs == 0:
            return History(name)
        ordinal, self.ordinal = self.ordinal, self.ordinal + 1
        seed = seed_all(run.seed, ordinal)
        chosen = list(run.parts if parts is None else parts)
        job = Job(
            run=run,
            name=name,
            epochs=epochs,
            lr=run.settings.optimizer.lr if lr is None else lr,
            parts=chosen,
            modules=auxiliary_modules(run, chosen),
            seed=seed,
            taps=wanted_taps(run, chosen),
            offset=self.epochs,
        )
        history = self._train(job)
        if run.depth == 0:
            self.epochs += len(history.epochs)
        run.history.append(history)
        seed_all(run.seed, ordinal, "after")
        return history

    def _train(self, job: Job) -> History:
        from bigopt.train._session import train

        started = time.perf_counter()
        record = train(job, self.signals)
        return History(
            job.name,
            record.epochs,
            record.best_epoch,
            seconds=time.perf_counter() - started,
            notes=record.notes,
        )
