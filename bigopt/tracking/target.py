"""Where runs go: the tracking URI without its credentials, and a store that is ready before anybody uses it."""

from __future__ import annotations

import logging
import os
import re
import socket
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit, urlunsplit

from bigopt.store import lock, redact, register_secret, write_atomic
from bigopt.vocabulary.errors import RequestError

if TYPE_CHECKING:
    from mlflow import MlflowClient

PORTS = {"postgresql": 5432, "mysql": 3306, "mssql": 1433}
DATABASES = (*PORTS, "sqlite")
KNOCK = 5.0
"""Seconds that a database's port may take to answer."""

SERVERS = ("http", "https", "databricks")
QUICK = {
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",  # seconds; the journal keeps what a slow server does not take
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",  # retried here, without a line of log each time
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_RECORD_ENV_VARS_IN_MODEL_LOGGING": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_LOGGING_LEVEL": "ERROR",
}


@dataclass(frozen=True)
class Target:
    """A tracking store.

    Attributes:
        uri: for MLflow; the credentials of a server are in the environment instead.
        experiment: name of the experiment.
        artifacts: where the experiment's artifacts go; None leaves it to the server.
    """

    uri: str
    experiment: str
    artifacts: str | None

    @property
    def shown(self) -> str:
        """The URI as it may be written down: without any secret."""
        return redact(self.uri)

    @property
    def file(self) -> Path | None:
        """The SQLite file, if the store is one."""
        return sqlite_file(self.uri)

    def client(self) -> MlflowClient:
        """A client of the store, which is created first if it is a file that is not there yet.

        Raises:
            OSError: nobody listens where a database should be.
        """
        quiet()
        from mlflow import MlflowClient

        if self.file is not None:
            prepare_sqlite(self.file, self.artifacts)
        else:
            knock(self.uri)
        return MlflowClient(tracking_uri=self.uri)


def resolve(uri: str | None, working_dir: Path, experiment: str = "bigopt") -> Target:
    """The store that ``tracking.uri`` means.

    Args:
        uri: MLflow tracking URI; None means ``mlflow.db`` in the working directory. Its secrets are registered for
            masking; a server's user and password move to ``MLFLOW_TRACKING_USERNAME`` and ``…_PASSWORD``.
        working_dir: what relative paths start from; local artifacts go to ``mlruns`` in it.
        experiment: name of the experiment.

    Raises:
        RequestError: not a URI that MLflow can track to.
    """
    working_dir = Path(working_dir).resolve()
    uri = uri or f"sqlite:///{working_dir / 'mlflow.db'}"
    scheme = uri.partition(":")[0].partition("+")[0].lower()
    if scheme in ("http", "https"):
        return Target(_without_credentials(uri), experiment, None)
    if scheme == "databricks" or scheme == "file":
        return Target(uri, experiment, None)
    if scheme not in DATABASES or "://" not in uri:
        known = ", ".join((*SERVERS, "file", *DATABASES))
        raise RequestError(f"tracking.uri: got {redact(uri)!r}, expected a URI that starts with one of {known}")
    _register_password(uri)
    file = sqlite_file(uri)
    if file is not None:
        file = working_dir / file
        uri = f"sqlite:///{file}"
    folder = re.sub(r"[^\w.-]+", "-", experiment, flags=re.ASCII).strip(".") or "experiment"
    home = file.parent if file is not None else working_dir
    return Target(uri, experiment, (home / "mlruns" / folder).as_uri())


def sqlite_file(uri: str) -> Path | None:
    """The file of an SQLite URI; None for other URIs and for databases in memory."""
    found = re.fullmatch(r"sqlite(?:\+\w+)?:///([^?]+)(?:\?.*)?", uri)
    return Path(found[1]) if found and ":memory:" not in uri else None


def knock(uri: str) -> None:
    """Looks whether a database's port answers: MLflow would try again for minutes where none does.

    Raises:
        OSError: it does not.
    """
    scheme = uri.partition(":")[0].partition("+")[0].lower()
    try:
        host, port = urlsplit(uri).hostname, urlsplit(uri).port
    except ValueError:  # several hosts
        return
    if scheme in PORTS and host:  # else a socket in the file system
        socket.create_connection((host, port or PORTS[scheme]), timeout=KNOCK).close()


def prepare_sqlite(file: Path, artifacts: str | None) -> None:
    """Creates the store if there is none, once for all processes: several that migrate one file at once crash.

    It is made beside its place and moved there when it is complete, so that a kill leaves none rather than half of one.
    """
    with lock(file):
        if not file.exists() or file.stat().st_size == 0:
            write_atomic(file, lambda temporary: _create(temporary, artifacts))
    _use_wal(file)


@lru_cache(maxsize=1)
def quiet() -> None:
    """Makes MLflow quick to give up, silent, and private; what the user set in the environment stays."""
    for name, value in QUICK.items():
        os.environ.setdefault(name, value)
    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.ERROR)


def _create(file: Path, artifacts: str | None) -> None:
    import sqlite3

    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    root = artifacts.rpartition("/")[0] if artifacts else (file.parent / "mlruns").as_uri()
    store = SqlAlchemyStore(f"sqlite:///{file}", root)
    store.engine.dispose()
    with sqlite3.connect(file) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
    connection.close()


@lru_cache(maxsize=8)
def _use_wal(file: Path) -> None:
    """Readers and a writer do not lock each other out in WAL mode; the file remembers it."""
    import sqlite3

    connection = sqlite3.connect(file, timeout=30)
    try:
        connection.execute("PRAGMA journal_mode=WAL")
    except sqlite3.OperationalError:
        pass  # a file system without shared memory: slower, not wrong
    finally:
        connection.close()


def _without_credentials(uri: str) -> str:
    parts = urlsplit(uri)
    if "@" not in parts.netloc:
        return uri
    credentials, _, host = parts.netloc.rpartition("@")
    user, _, password = credentials.partition(":")
    for secret in (password, unquote(password), "" if password else unquote(user)):
        register_secret(secret)
    if password:
        os.environ["MLFLOW_TRACKING_USERNAME"] = unquote(user)
        os.environ["MLFLOW_TRACKING_PASSWORD"] = unquote(password)
    else:
        os.environ["MLFLOW_TRACKING_TOKEN"] = unquote(user)
    return urlunsplit(parts._replace(netloc=host))


def _register_password(uri: str) -> None:
    credentials = uri.partition("://")[2].rpartition("@")[0]
    for secret in (credentials.partition(":")[2], unquote(credentials.partition(":")[2])):
        register_secret(secret)
