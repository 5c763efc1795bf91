"""Tracking of runs. Only this package knows MLflow, and it imports MLflow when the first event is sent."""

from __future__ import annotations

from pathlib import Path

from bigopt.store import register_secrets
from bigopt.tracking.mlflow_tracker import MlflowTracker
from bigopt.tracking.protocol import NullTracker, Status, Tracker
from bigopt.tracking.sync import sync
from bigopt.tracking.target import resolve
from bigopt.tracking.ui import open_ui
from bigopt.vocabulary.settings import Tracking

__all__ = ["MlflowTracker", "NullTracker", "Status", "Tracker", "make_tracker", "open_ui", "sync"]


def make_tracker(settings: Tracking, folder: Path, working_dir: Path) -> Tracker:
    """The tracker that the settings ask for; nothing is contacted before :meth:`Tracker.start`.

    Args:
        settings: the config group ``tracking``.
        folder: the run's folder, where the journal of events is kept.
        working_dir: where ``mlflow.db`` and ``mlruns`` are unless a URI is set; also what relative URIs start from.

    Raises:
        RequestError: ``tracking.uri`` is nothing that MLflow can track to.
    """
    if settings.name == "none":
        return NullTracker()
    register_secrets(settings.uri)
    target = resolve(settings.uri, Path(working_dir), settings.experiment)
    return MlflowTracker(settings, Path(folder), target, Path(working_dir))
