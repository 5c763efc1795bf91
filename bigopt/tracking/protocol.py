"""What the pipeline tells a tracker; nothing here knows MLflow."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

if TYPE_CHECKING:
    import numpy

Status = Literal["finished", "failed", "interrupted", "pruned"]


class Tracker(Protocol):
    """Told of what happens in one run. No method fails or waits because of the tracking server, except that
    :meth:`finish` gives it a bounded time to take what is left.
    """

    @property
    def run_id(self) -> str | None:
        """The run's id, to be given to child runs as ``parent``; None when nothing is tracked."""
        ...

    def start(self, name: str, params: Mapping[str, Any], tags: Mapping[str, Any], parent: str | None = None) -> None:
        """A run begins; in a folder whose run did not finish it goes on.

        Args:
            name: what people see.
            params: the resolved configuration, nested; secrets are masked here.
            tags: facts about the run (overrides, versions); secrets are masked here.
            parent: ``run_id`` of the sweep's run.
        """
        ...

    def epoch(self, stage: str, epoch: int, metrics: Mapping[str, float]) -> None:
        """Metrics of one epoch, as ``<stage>/<metric>`` at step ``epoch``."""
        ...

    def stage(self, name: str, metrics: Mapping[str, float], step: int) -> None:
        """Metrics of a whole stage, as ``stage/<name>/<metric>``."""
        ...

    def artifact(self, path: Path, folder: str = "") -> None:
        """A file or folder to keep with the run, under ``folder``; its content is read when it is sent."""
        ...

    def model(self, onnx_path: Path, example: numpy.ndarray[Any, Any]) -> None:
        """The exported model, with inputs ``(N, …)`` from which signature and input example are taken."""
        ...

    def finish(self, status: Status, error: str | None = None) -> None:
        """The run ended; ``error`` says why if it did not finish."""
        ...


class NullTracker:
    """Tracks nothing."""

    run_id: str | None = None

    def start(self, name: str, params: Mapping[str, Any], tags: Mapping[str, Any], parent: str | None = None) -> None:
        """Nothing."""

    def epoch(self, stage: str, epoch: int, metrics: Mapping[str, float]) -> None:
        """Nothing."""

    def stage(self, name: str, metrics: Mapping[str, float], step: int) -> None:
        """Nothing."""

    def artifact(self, path: Path, folder: str = "") -> None:
        """Nothing."""

    def model(self, onnx_path: Path, example: numpy.ndarray[Any, Any]) -> None:
        """Nothing."""

    def finish(self, status: Status, error: str | None = None) -> None:
        """Nothing."""
