"""Signatures that only running the code can tell: read in a process of its own, and kept by the file's hash."""

from __future__ import annotations

import ast
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bigopt.registry.plugin import Argument, Computed
from bigopt.registry.reading import Reading, refuse_positional
from bigopt.registry.source import Broken, find

TIMEOUT = 180.0
"""Seconds that importing one plugin may take."""

_FORMAT = "1"
_KEYS = {"summary", "arguments", "positional", "variadic", "facts", "files"}


def probe(module: str, attribute: str, version: str) -> Reading:
    """The signature of a plugin, which is imported in another process unless its file is known.

    Args:
        module: the plugin's module.
        attribute: its name inside the module.
        version: of its distribution.

    Raises:
        Broken: it cannot be imported, or has no signature that a configuration could fill.
    """
    kept = _kept(module, attribute, version)
    said = _read(kept)
    if said is None:
        said = _ask(module, attribute)
        if "error" not in said:  # a missing package may be installed at any time
            _keep(kept, said)
    if "error" in said:
        raise Broken(str(said["error"]))
    refuse_positional(said["positional"])
    return Reading(
        said["summary"],
        [_argument(*argument) for argument in said["arguments"]],
        {name: ast.literal_eval(text) for name, text in said["facts"].items()},
        said["variadic"],
    )


def cache_folder() -> Path:
    """Where signatures are kept: a folder of the user's, under ``XDG_CACHE_HOME``."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    root = Path(base) if os.path.isabs(base) else Path.home() / ".cache"
    return root / "bigopt" / "signatures"


def _argument(name: str, annotation: str, default: str | None, literal: bool) -> Argument:
    if default is None:
        return Argument(name, annotation, None, True)
    return Argument(name, annotation, ast.literal_eval(default) if literal else Computed(default))


def _kept(module: str, attribute: str, version: str) -> Path:
    """The file for this version of the plugin: its source, its distribution and the interpreter all count."""
    source = find(module)
    data = source.data
    if data is None:  # a compiled module
        try:
            data = Path(source.path).read_bytes()
        except OSError:
            data = source.path.encode()
    about = "\0".join((_FORMAT, sys.version, sys.prefix, module, attribute, version, source.path))
    return cache_folder() / f"{_digest(about.encode() + data)}.json"


def _ask(module: str, attribute: str) -> dict[str, Any]:
    folders = os.pathsep.join(os.path.abspath(folder) for folder in sys.path)
    command = [sys.executable, "-P", "-m", "bigopt.registry._child", module, attribute]
    try:
        done = subprocess.run(
            command,
            env={**os.environ, "PYTHONPATH": folders},
            capture_output=True,
            stdin=subprocess.DEVNULL,
            timeout=TIMEOUT,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return {"error": f"importing {module} took more than {TIMEOUT:.0f} s"}
    try:
        said: dict[str, Any] = json.loads(done.stdout)
    except ValueError:
        return {"error": f"importing {module} ended the interpreter with code {done.returncode}"}
    return said


def _read(path: Path) -> dict[str, Any] | None:
    try:
        said = json.loads(path.read_text(encoding="utf-8"))
        return said if _KEYS <= set(said) and _unchanged(said["files"]) else None
    except (OSError, ValueError, TypeError):
        return None


def _unchanged(files: Mapping[str, str]) -> bool:
    """Whether every file that the signature came from is as it was."""
    return all(_digest(Path(file).read_bytes()) == digest for file, digest in files.items())


def _keep(path: Path, said: dict[str, Any]) -> None:
    """Keeps what was said, whole or not at all; a cache that cannot be written costs time, nothing else."""
    try:
        said = {**said, "files": {file: _digest(Path(file).read_bytes()) for file in said["files"]}}
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=path.parent, suffix=".tmp", delete=False, encoding="utf-8") as file:
            json.dump(said, file)
    except OSError:
        return
    try:
        os.replace(file.name, path)
    except OSError:
        os.unlink(file.name)


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
