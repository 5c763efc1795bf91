"""Tags that every run gets: which code, which versions."""

from __future__ import annotations

import getpass
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PACKAGES = ("bigopt", "torch", "pytorch-lightning", "torchao", "onnxruntime", "mlflow", "optuna", "hydra-core")


def standard_tags(folder: Path) -> dict[str, str]:
    """Git commit of the repository around ``folder`` (if there is one), versions, and who runs it."""
    tags = {f"version.{name}": found for name in PACKAGES if (found := _version(name))}
    tags |= {"version.python": platform.python_version(), "mlflow.source.name": "bigopt", "mlflow.source.type": "LOCAL"}
    commit = _git(folder, "rev-parse", "HEAD")
    if commit:
        dirty = _git(folder, "status", "--porcelain", "--untracked-files=no")
        tags |= {"mlflow.source.git.commit": commit, "git.commit": commit, "git.dirty": str(bool(dirty)).lower()}
    try:
        tags["mlflow.user"] = getpass.getuser()
    except (OSError, KeyError, ImportError):
        pass  # containers may run a user id that has no name
    return tags


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def _git(folder: Path, *arguments: str) -> str:
    try:
        done = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, timeout=5)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
