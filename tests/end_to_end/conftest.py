"""Real runs through the command line, small enough for a test."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SMALL = [
    "dataset=digits",
    "model=lenet5",
    "trainer=debug",
    "measure=quick",
    "trainer.max_epochs=2",
    "optimizer.lr=3e-3",
]
PIPELINE = [
    *SMALL,
    "compression=[channel_pruning,quantization]",
    "compression.channel_pruning.recover.epochs=2",
    "control=true",
]


def bigopt(where: Path, *words: str, env: dict[str, str] | None = None, timeout: float = 280) -> Any:
    """Runs the command line in a process of its own."""
    variables = {**os.environ, "OMP_NUM_THREADS": "1", "HYDRA_FULL_ERROR": "0", **(env or {})}
    command = [sys.executable, "-m", "bigopt", *words]
    return subprocess.run(command, cwd=where, env=variables, capture_output=True, text=True, timeout=timeout)


def run_folder(where: Path) -> Path:
    """The newest run folder below a working directory."""
    return max(where.glob("outputs/*/*/"), key=lambda path: path.stat().st_mtime)


def report_of(where: Path) -> dict[str, Any]:
    """The newest report below a working directory."""
    found: dict[str, Any] = json.loads((run_folder(where) / "report.json").read_text())
    return found


class Finished:
    """One finished run: its working directory, process and report."""

    def __init__(self, where: Path, done: Any) -> None:
        self.where = where
        self.done = done
        self.folder = run_folder(where)
        self.report = report_of(where)


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """The main job, once for all tests that only look at it."""
    where = tmp_path_factory.mktemp("main-job")
    done = bigopt(where, *PIPELINE)
    assert done.returncode == 0, done.stderr
    return Finished(where, done)
