"""The only way to train."""

from __future__ import annotations

import hashlib
import logging
import math
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from bigopt.store import Generations, Store, lock, me, read_json, write_json
from bigopt.train import ddp
from bigopt.train.job import Job, auxiliary_modules, wanted_taps
from bigopt.train.key import content_key
from bigopt.train.results import key_of, read_result, weights_of, write_result
from bigopt.train.seeds import seed_all
from bigopt.train.signals import Signals
from bigopt.vocabulary.errors import RequestError, RunFailed
from bigopt.vocabulary.part import Part
from bigopt.vocabulary.run import History, Run

LOOK_EVERY = 0.5
"""Seconds between two looks at the signals while another process trains the same."""

FOUND = "found.json"
"""What ``auto`` came to, beside the fit that asked for it."""

log = logging.getLogger(__name__)


class Fitter:
    """Trains, remembers and resumes; implements :class:`bigopt.vocabulary.part.Fit`.

    Each fit is kept in ``fits/<NNN>-<name>/`` of the run's folder: ``result/`` when it is done, ``checkpoints/`` until
    then. A Fitter on the folder of an earlier process gives back the fits that were done, and goes on inside the one
    that was not; both only if everything that determines the fit is still the same.

    Args:
        folder: the run's folder.
        store: stage cache for fits with ``share=True``; None for none.
        signals: asked after every step whether to stop; None for never.
    """

    def __init__(self, folder: Path, store: Store | None = None, signals: Signals | None = None) -> None:
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
        """Trains ``run.model`` in place and leaves it at its best validation epoch.

        Everything is seeded from ``(run.seed, number of this fit)`` before and after, so that neither what happened
        before nor whether the result was known changes what follows. The arguments are those of
        :class:`bigopt.vocabulary.part.Fit`.

        Raises:
            RequestError: a negative number of epochs, nothing to train, a monitor that nothing measures.
            RunFailed: a loss that is not finite, or a result that cannot be written.
            Interrupted: a signal asked to stop; the run can be resumed.
            Pruned: the tuner stopped the trial.
        """
        epochs = run.settings.trainer.max_epochs if epochs is None else epochs
        if epochs < 0:
            raise RequestError(f"{name}: epochs: got {epochs}, expected 0 or more")
        if epochs == 0:
            return History(name)
        ordinal, self.ordinal = self.ordinal, self.ordinal + 1
        seed = seed_all(run.seed, ordinal)
        chosen = list(run.parts if parts is None else parts)
        job = Job(
            run=run,
            name=name,
            epochs=epochs,
            lr=math.nan if lr is None else lr,
            parts=chosen,
            modules=auxiliary_modules(run, chosen),
            seed=seed,
            taps=wanted_taps(run, chosen),
            offset=self.epochs,
        )
        self._settle(job, ordinal)
        job.lr = run.settings.optimizer.rate if lr is None else lr
        history = self._fit(job, ordinal, share)
        if run.depth == 0 and not history.cached:
            self.epochs += len(history.epochs)
        run.history.append(history)
        seed_all(run.seed, ordinal, "after")  # the same on every rank: they build the same things next
        self.signals.check()
        return history

    def _settle(self, job: Job, ordinal: int) -> None:
        """Finds what the configuration leaves open (``auto``), once: a resumed run reads what the first start found."""
        settings = job.run.settings
        lr = settings.optimizer.lr == "auto" and math.isnan(job.lr)
        batch_size = settings.trainer.batch_size == "auto"
        if not lr and not batch_size:
            return
        from bigopt.train import finder

        key = content_key(job, ordinal)
        file = self.folder / "fits" / f"{ordinal:03d}-{_slug(job.name)}" / FOUND
        # speeds are another machine's nowhere, and no two measurements agree: one machine finds one batch size
        shared = hashlib.sha256(f"{key}:{me().host}:found".encode()).hexdigest()
        content = _found(file, key)
        if content is None and self.store is not None and (entry := self.store.get(shared)) is not None:
            content = _found(entry / FOUND, key)
        if content is None:
            found = finder.find(job, lr=lr, batch_size=batch_size, curve=lambda j: finder.range_test(j, self.signals))
            self.signals.check()
            content = found.content()

            def keep(folder: Path) -> None:
                write_json(folder / FOUND, {"key": key, "found": content})

            if self.store is not None:
                with suppress(OSError):  # a cache that cannot be written to is said elsewhere
                    self.store.put(shared, keep)
        if _found(file, key) is None:
            file.parent.mkdir(parents=True, exist_ok=True)
            write_json(file, {"key": key, "found": content})
        found = finder.Found(**content)
        finder.settled(job.run, found)
        job.notes += found.notes()
        for name, rows in found.tables().items() if ddp.rank() == 0 else ():
            job.run.report.table(name, rows)

    def _fit(self, job: Job, ordinal: int, share: bool) -> History:
        """The result: from this run's folder, from the cache, or trained; in this order."""
        key = ddp.broadcast_object(content_key(job, ordinal))
        folder = self.folder / "fits" / f"{ordinal:03d}-{_slug(job.name)}"
        known = self._known(folder, key, job)
        if known is not None:
            return known
        if not share or self.store is None:
            return self._train(job, folder, key)
        with self._turn(self.store, key):
            cached = self._cached(self.store, folder, key, job)
            if cached is not None:
                return cached
            history = self._train(job, folder, key)
            self._share(self.store, key, job, history)
            return history

    def _known(self, folder: Path, key: str, job: Job) -> History | None:
        """This run's own result, if it is of this very fit."""
        found = Generations(folder / "result", keep=1).newest() if ddp.rank() == 0 else None
        found = ddp.broadcast_object(found if found is not None and key_of(found) == key else None)
        return None if found is None else read_result(found, job.run.model, job.modules)

    def _cached(self, store: Store, folder: Path, key: str, job: Job) -> History | None:
        """Another run's result; it is kept in this run's folder as well, which need not outlive the cache."""
        found = ddp.broadcast_object(store.get(key) if ddp.rank() == 0 else None)
        if found is None:
            return None
        history = read_result(found, job.run.model, job.modules)
        history.name, history.cached, history.seconds = job.name, True, 0.0
        self._keep(folder, key, job, history)
        return history

    def _train(self, job: Job, folder: Path, key: str) -> History:
        from bigopt.train._session import train

        checkpoints = Generations(folder / "checkpoints")
        record = train(job, self.signals, checkpoints, key)
        history = History(
            job.name, record.epochs, record.best_epoch, seconds=record.seconds, notes=record.notes + job.notes
        )
        self._keep(folder, key, job, history)
        if ddp.rank() == 0:
            _remove(folder / "checkpoints")
        return history

    def _keep(self, folder: Path, key: str, job: Job, history: History) -> None:
        """Writes the result into the run's folder.

        Raises:
            RunFailed: it could not be written.
        """
        problem = None
        if ddp.rank() == 0:
            try:
                weights = weights_of(job.run.model, job.modules)
                Generations(folder / "result", keep=1).save(lambda to: write_result(to, key, weights, history))
            except OSError as error:
                problem = f"{job.name}: the result could not be written to {folder}: {error.strerror or error}"
        problem = ddp.broadcast_object(problem)
        if problem is not None:
            raise RunFailed(problem)

    def _share(self, store: Store, key: str, job: Job, history: History) -> None:
        """Offers the result to other runs; a cache that cannot be written to is noted, and the run goes on."""
        if ddp.rank() != 0:
            return
        weights = weights_of(job.run.model, job.modules)
        try:
            store.put(key, lambda to: write_result(to, key, weights, history))
        except OSError as error:
            text = f"the result is not in the cache, which could not be written to: {error.strerror or error}"
            history.notes.append(text)
            log.warning("%s: %s", job.name, text)

    @contextmanager
    def _turn(self, store: Store, key: str) -> Iterator[None]:
        """Lets one process train what several ask for at the same time; the others wait, and find its result."""
        if ddp.rank() != 0:
            yield
            return
        held = None
        while held is None:
            self.signals.check()
            attempt = lock(store.root / "locks" / f"fit-{key}", timeout=LOOK_EVERY)
            try:
                attempt.__enter__()
                held = attempt
            except TimeoutError:
                continue
            except OSError as error:
                log.warning("the cache cannot be locked: %s", error.strerror or error)
                break
        try:
            yield
        finally:
            if held is not None:
                held.__exit__(None, None, None)


def _found(file: Path, key: str) -> dict[str, Any] | None:
    """What an earlier look came to, if it was of this very fit."""
    content = read_json(file) if file.is_file() else {}
    return dict(content["found"]) if content.get("key") == key else None


def _slug(name: str) -> str:
    """A name that is safe as a folder's."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip(".-") or "fit"


def _remove(folder: Path) -> None:
    """Removes checkpoints that a result has made useless; a rest does no harm."""
    import shutil

    shutil.rmtree(folder, ignore_errors=True)
