"""Where a study is kept: a journal file, SQLite, PostgreSQL, or Optuna's gRPC proxy."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bigopt.store import lock, machine_lock, redact, register_secrets
from bigopt.vocabulary.errors import RequestError

if TYPE_CHECKING:
    from optuna.storages import BaseStorage

FILE = "study.journal"
PATIENCE = 60  # seconds that a writer waits for another one's transaction in SQLite
REACHABLE = 10  # seconds that a gRPC proxy has to answer at the start
EXPECTED = "a journal file's path, sqlite:///FILE, postgresql://HOST/NAME, mysql://…, or grpc://HOST:PORT"


@dataclass
class Storage:
    """A place for studies; each process opens it for itself.

    Args:
        url: its address, secrets included.

    Attributes:
        shown: the address without secrets.
        kind: ``journal``, ``sqlite``, ``postgresql``, ``mysql`` or ``grpc``.
    """

    url: str
    shown: str = ""
    kind: str = ""
    _opened: tuple[int, Any] | None = field(default=None, repr=False)

    @classmethod
    def of(cls, given: str | None, folder: Path) -> Storage:
        """The storage that ``hydra.sweeper.storage`` means.

        Args:
            given: a URL or the path of a journal file; None means a journal in the sweep's folder.
            folder: the sweep's folder.

        Raises:
            RequestError: nothing that studies can be kept in, or its driver is missing.
        """
        if given is None or not str(given).strip():
            return cls(str((folder / FILE).resolve()), str(folder / FILE), "journal")
        url = str(given)
        register_secrets({"storage": url})
        scheme = url.partition("://")[0].partition("+")[0].lower() if "://" in url else "journal"
        if scheme not in ("journal", "sqlite", "postgresql", "mysql", "grpc"):
            raise RequestError(f"hydra.sweeper.storage: got {redact(url)!r}, expected {EXPECTED}")
        if scheme == "journal":
            path = Path(url.partition("://")[2] if "://" in url else url).resolve()
            if path.is_dir():
                raise RequestError(f"hydra.sweeper.storage: got {url!r}, which is a folder, expected {EXPECTED}")
            return cls(str(path), str(path), "journal")
        if scheme == "sqlite":
            found = re.fullmatch(r"sqlite(?:\+\w+)?:///([^?]+)", url)
            if found is None:
                raise RequestError(f"hydra.sweeper.storage: got {url!r}, expected sqlite:///FILE")
            url = f"sqlite:///{Path(found[1]).resolve()}"
        if scheme == "postgresql" and url.startswith("postgresql://") and find_spec("psycopg2") is None:
            if find_spec("psycopg") is None:
                raise RequestError(
                    "hydra.sweeper.storage: PostgreSQL's driver is missing; pip install bigopt[postgresql]"
                )
            url = "postgresql+psycopg://" + url.removeprefix("postgresql://")
        if scheme == "grpc" and re.fullmatch(r"grpc://[^/:]+:\d+/?", url) is None:
            raise RequestError(f"hydra.sweeper.storage: got {redact(url)!r}, expected grpc://HOST:PORT")
        if scheme == "grpc" and find_spec("grpc") is None:
            raise RequestError("hydra.sweeper.storage: gRPC's driver is missing; pip install bigopt[grpc]")
        return cls(url, redact(url), scheme)

    @property
    def path(self) -> Path | None:
        """The file of a journal or of SQLite."""
        if self.kind == "journal":
            return Path(self.url)
        return Path(self.url.removeprefix("sqlite:///")) if self.kind == "sqlite" else None

    def open(self) -> BaseStorage:
        """This process's own connection; one that was made before a fork is left alone.

        Raises:
            RequestError: it cannot be reached or created.
        """
        if self._opened is None or self._opened[0] != os.getpid():
            self._opened = (os.getpid(), self._connect())
        opened: BaseStorage = self._opened[1]
        return opened

    def close(self) -> None:
        """Closes this process's connections, as has to be done before a fork; the next :meth:`open` makes new ones."""
        if (
            self._opened is not None
            and self._opened[0] == os.getpid()
            and self.kind in ("sqlite", "postgresql", "mysql")
        ):
            self._opened[1].remove_session()
            self._opened[1].engine.dispose()
        if self.kind != "journal":
            self._opened = None

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Lets one process at a time decide what is tried next: on all machines for files that they share and for
        PostgreSQL, else on this one.
        """
        if self.path is not None:
            with lock(self.path.with_name(self.path.name + ".turn")):
                yield
        elif self.kind == "postgresql":
            with self._advisory():
                yield
        else:
            with machine_lock(f"study-{self._number:x}"):
                yield

    @property
    def _number(self) -> int:
        return int.from_bytes(hashlib.sha256(self.shown.rpartition("@")[2].encode()).digest()[:7], "big")

    @contextmanager
    def _advisory(self) -> Iterator[None]:
        """PostgreSQL's own lock, which it takes back when the connection is gone."""
        from sqlalchemy import text

        opened: Any = self.open()
        with opened.engine.connect() as connection:
            connection.execute(text("SELECT pg_advisory_lock(:key)"), {"key": 0x62696F70})
            try:
                yield
            finally:
                connection.execute(text("SELECT pg_advisory_unlock(:key)"), {"key": 0x62696F70})

    def _connect(self) -> BaseStorage:
        try:
            if self.kind == "journal":
                from optuna.storages import JournalStorage

                from bigopt.search.journal import JournalFile

                return JournalStorage(JournalFile(self.url))
            if self.kind == "grpc":
                from optuna.storages import GrpcStorageProxy

                host, _, port = self.url.removeprefix("grpc://").strip("/").rpartition(":")
                proxy = GrpcStorageProxy(host=host, port=int(port))
                proxy.wait_server_ready(REACHABLE)
                return proxy
            with self._creating():
                return self._database()
        except RequestError:
            raise
        except Exception as error:
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise RequestError(f"hydra.sweeper.storage: {self.shown} cannot be used: {redact(reason)[:300]}") from error

    @contextmanager
    def _creating(self) -> Iterator[None]:
        """Tables are created by one process at a time."""
        with lock(self.path) if self.path is not None else machine_lock(f"study-{self._number:x}-tables"):
            yield

    def _database(self) -> BaseStorage:
        from optuna.storages import RDBStorage

        if self.kind == "sqlite":
            import sqlite3

            assert self.path is not None
            self.path.parent.mkdir(parents=True, exist_ok=True)
            connection = sqlite3.connect(self.path, timeout=PATIENCE)
            connection.execute("PRAGMA journal_mode=WAL")
            connection.close()
            return RDBStorage(self.url, engine_kwargs={"connect_args": {"timeout": PATIENCE}})
        options = {"pool_pre_ping": True, "pool_size": 2, "max_overflow": 4}
        for attempt in range(5):  # machines that create the tables at the same time get in each other's way
            try:
                return RDBStorage(self.url, engine_kwargs=options, skip_compatibility_check=attempt > 3)
            except Exception as error:
                if attempt == 4 or not _race(error):
                    raise
        raise AssertionError


def _race(error: Exception) -> bool:
    return any(word in str(error) for word in ("already exists", "duplicate key", "UniqueViolation"))
