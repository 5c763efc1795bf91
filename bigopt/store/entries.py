"""Content-addressed folders: the stage cache and everything else that is computed once."""

from __future__ import annotations

import re
from contextlib import AbstractContextManager
from pathlib import Path

from bigopt.store.atomic import Fill, discard, make_folder, publish_folder, reap, temporary_for
from bigopt.store.locks import lock
from bigopt.store.manifest import read_manifest, verify, write_manifest


class Store:
    """Folders by the SHA-256 of everything that determines their content; safe with any number of processes.

    An entry is complete and verified, or it does not exist. Reading needs no lock.

    Args:
        root: folder of the store; it is created with the first entry.
    """

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root)
        self._unfinished = self.root / "unfinished"
        reap(self._unfinished)

    def get(self, key: str) -> Path | None:
        """The folder of an entry whose every byte was verified just now; None when there is none.

        A damaged entry is removed, so that the caller rebuilds it.
        """
        path = self._path(key)
        if self._good(key):
            return path
        if path.exists():
            try:
                with self._locked(key):
                    self._drop_damaged(key)
            except OSError:
                return None  # a store that cannot be written to: the entry stays and is not used
        return None

    def put(self, key: str, fill: Fill) -> Path:
        """Adds an entry.

        Args:
            key: SHA-256 in hex.
            fill: writes the entry's files into the empty folder it is given.

        Returns:
            The entry's folder: the one just filled, or an equal one that another process finished first.

        Raises:
            OSError: the entry could not be written; the store is as it was.
            Exception: whatever ``fill`` raises, likewise.
        """
        path = self._path(key)
        make_folder(self._unfinished)
        make_folder(path.parent)
        temporary = temporary_for(self._unfinished / key)
        try:
            temporary.mkdir()
            fill(temporary)
            write_manifest(temporary, {"key": key})
            with self._locked(key):
                self._drop_damaged(key)
                if not path.exists():
                    publish_folder(temporary, path)
        finally:
            discard(temporary)
        return path

    def _drop_damaged(self, key: str) -> None:
        """Takes a damaged entry out of sight (under the lock), then removes it."""
        path = self._path(key)
        if not path.exists() or self._good(key):
            return
        make_folder(self._unfinished)
        aside = temporary_for(self._unfinished / key)
        path.rename(aside)
        discard(aside)

    def _good(self, key: str) -> bool:
        path = self._path(key)
        content = read_manifest(path)
        return content is not None and content["extra"].get("key") == key and verify(path)

    def _locked(self, key: str) -> AbstractContextManager[None]:
        return lock(self.root / "locks" / f"{key[:2]}.lock")

    def _path(self, key: str) -> Path:
        if not re.fullmatch(r"[0-9a-f]{64}", key):
            raise ValueError(f"a key is a SHA-256 in lower-case hex, got {key!r}")
        return self.root / key[:2] / key
