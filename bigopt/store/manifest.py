"""What a folder must hold: written last, so that a folder without one does not exist."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from bigopt.store.atomic import fsync_file, fsync_folder, is_temporary, plain, read_json, write_json
from bigopt.vocabulary.errors import RequestError

NAME = "manifest.json"
CHUNK = 1 << 20


def write_manifest(folder: str | Path, extra: Mapping[str, Any] | None = None) -> Path:
    """Brings every file of a folder to the disk and writes ``manifest.json`` with their SHA-256 and size.

    Args:
        folder: a complete folder.
        extra: JSON-able facts to keep with it, covered by the manifest's own checksum.

    Raises:
        OSError: a file or the manifest could not be written.
    """
    folder = Path(folder)
    files = {}
    for path in sorted(folder.rglob("*")):
        if path.is_dir():
            fsync_folder(path)
        elif path != folder / NAME and not is_temporary(path):
            fsync_file(path)
            files[path.relative_to(folder).as_posix()] = {"sha256": sha256(path), "bytes": path.stat().st_size}
    content = {"schema": 1, "files": files, "extra": plain(dict(extra or {}))}
    return write_json(folder / NAME, content | {"sha256": _digest(content)})


def read_manifest(folder: str | Path) -> dict[str, Any] | None:
    """The manifest of a folder if there is one and it is intact; None otherwise."""
    try:
        content = read_json(Path(folder) / NAME)
    except (OSError, RequestError):
        return None
    if not isinstance(content, dict) or content.pop("sha256", None) != _digest(content):
        return None
    return content


def verify(folder: str | Path) -> bool:
    """Whether a folder has an intact manifest and every file that it names, byte for byte."""
    folder = Path(folder)
    content = read_manifest(folder)
    if content is None:
        return False
    return all(_intact(folder, name, facts) for name, facts in content["files"].items())


def sha256(path: str | Path) -> str:
    """SHA-256 of a file's content, in hex."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def _intact(folder: Path, name: str, facts: Mapping[str, Any]) -> bool:
    if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
        return False  # a manifest from elsewhere must not make us read outside its folder
    path = folder / name
    try:
        return bool(path.stat().st_size == facts["bytes"] and sha256(path) == facts["sha256"])
    except OSError:
        return False


def _digest(content: Mapping[str, Any]) -> str:
    """Checksum of the manifest itself: a flipped byte in it must be found like any other."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
