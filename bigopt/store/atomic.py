"""The one writer: a reader sees the complete old file or the complete new one, whatever happens in between."""

from __future__ import annotations

import json
import math
import os
import re
import secrets
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from bigopt.store.process import Owner, me
from bigopt.vocabulary.errors import RequestError

TAG = ".bigopt-tmp"
FOREIGN_AGE = 7 * 24 * 3600.0  # seconds after which an untouched temporary of another machine counts as left behind

Fill = Callable[[Path], None]


def write_atomic(path: str | Path, data: bytes | str | Fill) -> Path:
    """Writes a file so that it is complete or not there: temporary file → fsync → replace → fsync the folder.

    Args:
        path: the file; missing folders above it are created.
        data: content (text as UTF-8), or a function that writes the content to the path it is given.

    Returns:
        The path written.

    Raises:
        OSError: disk full, size limit, unwritable folder, nothing written; the old file is as it was.
        Exception: whatever ``data`` raises, likewise with the old file intact.
    """
    path = Path(path)
    make_folder(path.parent)
    temporary = temporary_for(path)
    try:
        if callable(data):
            data(temporary)
            if not temporary.is_file():
                raise OSError(f"nothing was written for {path}")
            fsync_file(temporary)
        else:
            _write_bytes(temporary, data.encode() if isinstance(data, str) else data)
        _commit(temporary, path)
    except BaseException:
        discard(temporary)
        raise
    return path


def write_json(path: str | Path, value: Any) -> Path:
    """Writes JSON atomically; floats that are not finite become null, paths text, arrays lists.

    Raises:
        OSError: as :func:`write_atomic`.
        TypeError: the value holds something that JSON cannot.
    """
    return write_atomic(path, json.dumps(plain(value), indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: str | Path) -> Any:
    """Reads JSON.

    Raises:
        OSError: the file cannot be read.
        RequestError: it is not JSON.
    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise RequestError(f"{path}: not valid JSON ({error})") from None


def plain(value: Any) -> Any:
    """The value in JSON's own types; floats that are not finite become None.

    Raises:
        TypeError: for what JSON cannot hold.
    """
    if value is None or isinstance(value, (bool, str)):
        return value
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {_json_key(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, (set, frozenset)):
        return [plain(item) for item in sorted(value)]
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if hasattr(value, "tolist"):  # arrays, tensors and their scalars
        return plain(value.tolist())
    raise TypeError(f"JSON cannot hold {type(value).__name__}: {value!r:.80}")


def reap(folder: str | Path, recursive: bool = False) -> list[Path]:
    """Removes what dead processes left half-written in a folder.

    Temporaries of living processes stay; those of other machines stay until nobody touched them for a week.

    Returns:
        What was removed.
    """
    folder = Path(folder)
    found = folder.rglob(f".*{TAG}*") if recursive else folder.glob(f".*{TAG}*")
    removed = []
    for orphan in list(found):
        if _left_behind(orphan):
            discard(orphan)
            removed.append(orphan)
    return removed


def temporary_for(path: Path) -> Path:
    """A fresh name beside ``path`` that says whose it is, with the same ending: some libraries go by it."""
    stem = re.sub(r"[^A-Za-z0-9_-]", "_", path.stem)[:48]  # names are limited in bytes
    return path.with_name(f".{stem}.{me()}.{secrets.token_hex(4)}{TAG}{path.suffix[:16]}")


def is_temporary(path: Path) -> bool:
    """Whether this is a temporary of the writer, not content."""
    return path.name.startswith(".") and TAG in path.name


def discard(path: Path) -> None:
    """Removes a file or a folder; does not fail."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
        return
    try:
        path.unlink(missing_ok=True)
    except OSError:
        pass  # reaped at the next start


def make_folder(folder: Path) -> None:
    """Creates a folder and those above it, durably."""
    if folder.is_dir():
        return
    make_folder(folder.parent)
    folder.mkdir(exist_ok=True)
    fsync_folder(folder.parent)


def fsync_file(path: Path) -> None:
    """Brings a file's content to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def fsync_folder(folder: Path) -> None:
    """Brings a folder's entries to the disk, where the system can."""
    if os.name == "nt":
        return  # folders cannot be opened there; the replace itself is journalled
    fsync_file(folder)


def publish_folder(temporary: Path, target: Path) -> None:
    """Renames a complete, fsynced folder into place.

    Raises:
        OSError: the target exists (and is not an empty folder), or the rename failed.
    """
    _rename(temporary, target)
    fsync_folder(target.parent)


def _commit(temporary: Path, path: Path) -> None:
    """The moment at which the new file becomes the file."""
    _rename(temporary, path)
    fsync_folder(path.parent)


def _rename(temporary: Path, path: Path) -> None:
    """Every commit goes through here, so that tests can stop right before and right after it."""
    os.replace(temporary, path)


def _write_bytes(path: Path, data: bytes) -> None:
    with open(path, "xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _left_behind(path: Path) -> bool:
    owner = Owner.parse(path.name.rpartition(TAG)[0].rpartition(".")[0].rpartition(".")[2])
    alive = owner.alive() if owner else None
    if alive is not None:
        return not alive
    try:
        return time.time() - path.stat().st_mtime > FOREIGN_AGE
    except OSError:
        return False


def _json_key(key: Any) -> str:
    if isinstance(key, bool) or key is None or not isinstance(key, (str, int, float)):
        raise TypeError(f"JSON keys are text, got {key!r:.80}")
    return str(key)
