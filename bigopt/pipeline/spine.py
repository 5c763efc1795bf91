"""What one run does, top to bottom."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bigopt.pipeline.driver import compress, frozen_copy, recovery_lr, recovery_parts, step_epochs
from bigopt.pipeline.names import check_ignored
from bigopt.pipeline.rank import ranks
from bigopt.pipeline.session import Session
from bigopt.vocabulary.part import Part


def execute(
    checked: Any,
    folder: Path,
    *,
    overrides: Sequence[str] = (),
    parent: str | None = None,
    progress: Any = None,
    test: bool | None = None,
) -> dict[str, Any]:
    """Trains, compresses, measures and reports as one configuration says.

    Args:
        checked: the checked configuration (:class:`bigopt.config.Checked`).
        folder: the run's folder; what an earlier start left there is gone on with.
        overrides: what the command line said, for the record.
        parent: MLflow run that this one belongs to; set inside a sweep's trials, which never read the test split.
        progress: told of long work (:class:`bigopt.vocabulary.run.Progress`); None for nobody.
        test: whether the test split may be read; None means only without a parent.

    Returns:
        the report, as ``report.json`` holds it.

    Raises:
        RequestError: the request was wrong.
        RunFailed: training failed.
        Interrupted: a signal asked to stop; the run can be resumed.
        Pruned: the tuner stopped the trial.
    """
    with (
        ranks(checked, folder),
        Session(checked, folder, overrides=overrides, parent=parent, progress=progress, test=test) as session,
    ):
        run, fit = session.run, session.fit
        for part in run.parts:
            part.prepare(run, fit)
        check_ignored(run.model, [(name, options) for name, _, _, options in session.steps])
        start = time.perf_counter()
        fit(run, name="baseline", share=True)
        for part in run.parts:
            part.finish(run, fit)
        run.baseline = frozen_copy(run.model)
        session.row("baseline", None, seconds=time.perf_counter() - start)
        if run.settings.control:
            control(session)
        for name, plugin, part, options in session.steps:
            outcome = compress(run, name, part, options, fit)
            session.row(name, plugin, outcome.epochs, outcome.seconds, strength=outcome.strength)
        return session.close()


def control(session: Session) -> None:
    """The row ``control``: the uncompressed baseline, given the epochs and the teacher that the steps get."""
    run = session.run
    epochs = sum(step_epochs(run, part, options) for _, _, part, options in session.steps)
    trained = [(part, options) for _, _, part, options in session.steps if step_epochs(run, part, options)]
    if not epochs or run.baseline is None:
        run.report.note("control: the steps train no further epochs, so the baseline is its own control")
        return
    start = time.perf_counter()
    fork = run.fork(model=frozen_copy(run.model).requires_grad_(True))
    for parameter, original in zip(fork.model.parameters(), run.model.parameters(), strict=True):
        parameter.requires_grad_(original.requires_grad)
    part, options = trained[-1]
    parts: list[Part] = recovery_parts(run, None, options)
    session.fit(fork, epochs, lr=recovery_lr(run, part, options), name="control", parts=parts)
    run.history.extend(fork.history)
    session.row("control", None, epochs, time.perf_counter() - start, model=fork.model)
