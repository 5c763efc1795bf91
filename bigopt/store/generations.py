"""Checkpoints of one thing over time: the newest that verifies is the one to go on from."""

from __future__ import annotations

import errno
from pathlib import Path

from bigopt.store.atomic import Fill, discard, make_folder, publish_folder, reap, temporary_for
from bigopt.store.manifest import verify, write_manifest


class Generations:
    """Numbered folders of which the last few are kept.

    Args:
        folder: where they lie; it is created with the first one.
        keep: how many are kept; the last good one is never removed before its successor is complete.
    """

    def __init__(self, folder: str | Path, keep: int = 2) -> None:
        if keep < 1:
            raise ValueError(f"keep: got {keep}, expected at least 1")
        self.folder = Path(folder)
        self.keep = keep
        reap(self.folder)

    def save(self, fill: Fill) -> Path:
        """Adds a generation, then removes those that are too old.

        Args:
            fill: writes the generation's files into the empty folder it is given.

        Raises:
            OSError: it could not be written; the older ones are as they were.
            Exception: whatever ``fill`` raises, likewise.
        """
        make_folder(self.folder)
        temporary = temporary_for(self.folder / "new")
        try:
            temporary.mkdir()
            fill(temporary)
            write_manifest(temporary)
            saved = self._publish(temporary)
        finally:
            discard(temporary)
        for old in self._all()[: -self.keep]:
            self._remove(old)
        return saved

    def newest(self) -> Path | None:
        """The newest generation that verifies; newer damaged ones are removed. None when there is none."""
        for path in reversed(self._all()):
            if verify(path):
                return path
            self._remove(path)
        return None

    def _publish(self, temporary: Path) -> Path:
        number = int(self._all()[-1].name) if self._all() else 0
        while True:
            number += 1
            target = self.folder / f"{number:06d}"
            try:
                publish_folder(temporary, target)
            except OSError as error:
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                    raise
            else:
                return target

    def _all(self) -> list[Path]:
        """Generations, oldest first."""
        if not self.folder.is_dir():
            return []
        return sorted((p for p in self.folder.iterdir() if p.name.isdecimal()), key=lambda p: int(p.name))

    def _remove(self, path: Path) -> None:
        """Out of sight first: a half-removed generation must not look like one."""
        aside = temporary_for(self.folder / "old")
        try:
            path.rename(aside)
        except OSError:
            return  # another process removed it, or the folder is read-only
        discard(aside)
