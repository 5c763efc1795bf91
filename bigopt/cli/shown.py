"""A run as a person sees it: progress while it works, the stage table and where the files lie at the end."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bigopt.config import Checked
from bigopt.vocabulary.errors import Interrupted


def execute(
    checked: Checked,
    folder: Path,
    *,
    overrides: Sequence[str] = (),
    parent: str | None = None,
    test: bool | None = None,
    trial: Any = None,
) -> dict[str, Any]:
    """Runs a checked configuration with its progress drawn; see :func:`bigopt.pipeline.execute`.

    A sweep's trial draws nothing and reports to its study instead.

    Args:
        checked: the configuration.
        folder: the run's.
        overrides: what the command line said.
        parent: the sweep's tracking run.
        test: whether the test split may be read.
        trial: where the study and the trial are (:class:`bigopt.search.reporting.TrialPlace`).
    """
    from bigopt.cli.progress import RichProgress
    from bigopt.pipeline import execute as run

    if trial is not None:
        from bigopt.search.reporting import reporter

        return run(checked, folder, overrides=overrides, parent=parent, progress=reporter(trial, checked), test=test)
    try:
        with RichProgress(show=parent is None) as progress:
            report = run(checked, folder, overrides=overrides, parent=parent, progress=progress, test=test)
    except (Interrupted, KeyboardInterrupt):
        print(f"bigopt: to go on with this run: bigopt resume={shlex.quote(str(folder))}", file=sys.stderr)
        raise
    if parent is None:
        _summary(report, folder, checked)
    return report


def _summary(report: dict[str, Any], folder: Path, checked: Checked) -> None:
    from rich.console import Console

    from bigopt.report import render_summary
    from bigopt.store import redact

    tracking = checked.settings.tracking
    uri = None if tracking.name == "none" else redact(tracking.uri or f"sqlite:///{Path.cwd() / 'mlflow.db'}")
    Console(soft_wrap=True, highlight=False).print(render_summary(report, folder, uri))
