"""One finding, and questions that are asked in a process of their own, since an answer may be a crash."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass, field
from typing import Any, Literal

Status = Literal["ok", "warn", "fail"]


@dataclass(frozen=True)
class Check:
    """One finding.

    Attributes:
        name: what was looked at.
        status: ``warn`` costs something, ``fail`` keeps bigopt from working.
        line: what was found.
        hint: what to do about it; empty when there is nothing to do.
        details: the same for programs.
    """

    name: str
    status: Status
    line: str
    hint: str = ""
    details: dict[str, Any] = field(default_factory=dict)


def ask(code: str, timeout: float = 120.0) -> tuple[Any, str]:
    """Runs Python code that prints JSON as its last line.

    Args:
        code: the program; it finds the modules that this process finds.
        timeout: seconds.

    Returns:
        The JSON and an empty text, or None and why there is none: the last line of the error.
    """
    folders = os.pathsep.join(os.path.abspath(folder) for folder in sys.path)
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-c", code],
            env={**os.environ, "PYTHONPATH": folders},
            capture_output=True,
            stdin=subprocess.DEVNULL,
            text=True,
            errors="replace",
            timeout=timeout,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return None, f"no answer in {timeout:.0f} s"
    if done.returncode:
        last = done.stderr.strip().rpartition("\n")[2].strip()
        return None, last or f"the interpreter ended with code {done.returncode}"
    try:
        return json.loads(done.stdout.strip().rpartition("\n")[2]), ""
    except ValueError:
        return None, "it gave no answer"
