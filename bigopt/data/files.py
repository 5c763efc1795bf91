"""Where data lie on disk, and messages about what is not there."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable
from pathlib import Path

from bigopt.vocabulary.errors import RequestError


def need_folder(path: str | Path, key: str) -> Path:
    """An existing folder.

    Args:
        path: as given in the configuration; ``~`` is the home folder.
        key: the configuration's key, for the message.

    Raises:
        RequestError: it does not exist or is no folder.
    """
    return _need(path, key, "folder")


def need_file(path: str | Path, key: str) -> Path:
    """An existing file, with the same arguments and errors as :func:`need_folder`."""
    return _need(path, key, "file")


def _need(path: str | Path, key: str, what: str) -> Path:
    given = Path(path)
    if not str(path) or "\0" in str(path):
        raise RequestError(f"{key}: got {str(path)!r}, expected the path of a {what}")
    try:
        given = given.expanduser()
    except RuntimeError as error:  # ~somebody
        raise RequestError(f"{key}: {given}: there is no such user") from error
    try:
        if given.is_dir() if what == "folder" else given.is_file():
            return given
        there = given.exists()
    except OSError as error:  # a name too long, a folder on the way that may not be entered
        shown = str(given) if len(str(given)) < 200 else f"{str(given)[:200]}…"
        raise RequestError(f"{key}: {shown}: {error.strerror}") from error
    if there:
        raise RequestError(f"{key}: {given} is not a {what}")
    raise RequestError(f"{key}: the {what} {given} does not exist{_near(given)}")


def _near(path: Path) -> str:
    try:
        there = [entry.name for entry in path.parent.iterdir()]
    except OSError:
        return f" (nor can its folder {path.parent} be read)"
    return nearest(path.name, there)


def nearest(name: str, names: Iterable[str]) -> str:
    """The end of a message that offers the names most like a wrong one; empty if none is."""
    close = difflib.get_close_matches(name, [str(n) for n in names], n=3, cutoff=0.6)
    return f"; nearest: {', '.join(close)}" if close else ""


def inside(root: Path, path: Path, key: str) -> Path:
    """The path, unless a link on it leads out of its root.

    Raises:
        RequestError: it does.
    """
    if not path.resolve().is_relative_to(root.resolve()):
        raise RequestError(f"{key}: {path} is a link that leads out of {root}")
    return path


def data_folders(name: str) -> list[Path]:
    """Folders that may hold a dataset of this name, in the order in which they are tried.

    ``$BIGOPT_DATA/<name>``, then ``datasets/<name>`` under ``$XDG_DATA_HOME`` and each of ``$XDG_DATA_DIRS``
    (where Debian's data packages put theirs).
    """
    folders = [Path(os.environ["BIGOPT_DATA"]).expanduser() / name] if os.environ.get("BIGOPT_DATA") else []
    home = os.environ.get("XDG_DATA_HOME") or "~/.local/share"
    shared = os.environ.get("XDG_DATA_DIRS") or "/usr/local/share:/usr/share"
    bases = [home, *(part for part in shared.split(":") if part), "/usr/share"]
    for base in bases:
        folder = Path(base).expanduser() / "datasets" / name
        if folder not in folders:
            folders.append(folder)
    return folders
