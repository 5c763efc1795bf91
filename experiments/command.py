"""What an experiment needs to run bigopt's command and read what it found."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def report_of(words: Sequence[str]) -> dict[str, Any]:
    """The report of ``bigopt <words>``, run in this process in a temporary folder.

    Raises:
        SystemExit: the command failed; its exit code is said.
    """
    from bigopt.cli.main import main

    with tempfile.TemporaryDirectory() as folder:
        if code := main([*words, f"hydra.run.dir={folder}/run"]):
            raise SystemExit(f"bigopt {' '.join(words)}: exit code {code}")
        report: dict[str, Any] = json.loads((Path(folder) / "run" / "report.json").read_text())
    return report
