"""Tracking store, studies' storage and the working folder: can they be reached and written?"""

from __future__ import annotations

import base64
import os
import re
import socket
import sqlite3
import tempfile
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

from bigopt.cli._checks.check import Check, Status
from bigopt.registry.source import locate
from bigopt.store import redact, register_secrets
from bigopt.vocabulary.errors import RequestError

PATIENCE = 5.0
"""Seconds that a server may take to answer."""

_PORTS = {"postgresql": 5432, "mysql": 3306, "mssql": 1433}
_DRIVERS = {"postgresql": ("psycopg2", "psycopg"), "mysql": ("pymysql", "MySQLdb"), "mssql": ("pyodbc",)}
_DOWN = "start it; meanwhile runs are kept on disk, and `bigopt report --sync` sends them"


def folder_check(folder: Path) -> Check:
    """Whether runs can be written below the working folder."""
    problem = _unwritable(folder)
    if problem:
        return Check("working folder", "fail", f"{folder}: {problem}", "change to a folder that you may write in")
    return Check("working folder", "ok", f"{folder} can be written")


def tracking_check(uri: str | None, folder: Path) -> Check:
    """Whether the tracking store can be used; a server that is down stops no run.

    Args:
        uri: MLflow tracking URI; None means the default file in the working folder.
        folder: the working folder.
    """
    from bigopt.tracking.target import resolve

    try:
        target = resolve(uri, folder)
    except RequestError as error:
        return Check("tracking", "fail", str(error))
    if target.file is not None:
        return _sqlite("tracking", target.file, "set tracking.uri to a file elsewhere")
    if target.uri.startswith(("http://", "https://")):
        return _server(target.uri)
    if target.uri.startswith("file:"):
        line = f"{target.shown}: MLflow keeps no new features in plain folders"
        return Check("tracking", "warn", line, "set tracking.uri=sqlite:///mlflow.db")
    return _database("tracking", target.uri, "warn", _DOWN)


def storage_check(uri: str | None, folder: Path) -> Check:
    """Whether studies can be kept.

    Args:
        uri: of Optuna's storage (``hydra.sweeper.storage``); None means a journal file in the sweep's own folder.
        folder: the working folder.
    """
    if uri is None:
        problem = _unwritable(folder)
        line = f"journal file in the sweep's folder{': ' + problem if problem else ''}"
        return Check("storage", "fail" if problem else "ok", line)
    register_secrets({"storage": uri})
    sqlite = re.fullmatch(r"sqlite(?:\+\w+)?:///([^?]+)(?:\?.*)?", uri)
    if sqlite:
        return _sqlite("storage", folder / sqlite[1], "set hydra.sweeper.storage to a file elsewhere")
    if "://" in uri:
        return _database("storage", uri, "fail", "start it, or leave hydra.sweeper.storage unset for a journal file")
    journal = folder / uri
    if journal.is_dir():
        return Check("storage", "fail", f"{journal} is a folder, expected a journal file or a URI")
    problem = _unwritable(journal.parent) or (
        "" if os.access(journal, os.W_OK) or not journal.exists() else "read-only"
    )
    return Check("storage", "fail" if problem else "ok", f"journal file {journal}{': ' + problem if problem else ''}")


def _sqlite(name: str, file: Path, hint: str) -> Check:
    """A file that may not be there yet; one that is there must be a database that takes a write."""
    if not file.exists():
        problem = _unwritable(file.parent)
        line = f"{file} cannot be created: {problem}" if problem else f"{file} will be created"
        return Check(name, "fail" if problem else "ok", line, hint if problem else "", {"path": str(file)})
    if not os.access(file, os.W_OK):
        return Check(name, "fail", f"{file} is read-only", hint)
    try:
        connection = sqlite3.connect(file, timeout=PATIENCE, isolation_level=None)
        try:
            connection.execute("SELECT count(*) FROM sqlite_master")
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("ROLLBACK")
        finally:
            connection.close()
    except sqlite3.OperationalError as error:
        return Check(name, "warn", f"{file}: {error}", "another program holds it; is a run still going on?")
    except sqlite3.DatabaseError as error:
        return Check(name, "fail", f"{file} is damaged: {error}", f"move it away, or {hint}")
    return Check(name, "ok", f"{file} can be written", "", {"path": str(file)})


def _server(uri: str) -> Check:
    shown = redact(uri)
    request = Request(f"{uri.rstrip('/')}/health")
    user, password = (os.environ.get(f"MLFLOW_TRACKING_{part}", "") for part in ("USERNAME", "PASSWORD"))
    token = os.environ.get("MLFLOW_TRACKING_TOKEN")
    if user:
        request.add_header("Authorization", "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode())
    elif token:
        request.add_header("Authorization", f"Bearer {token}")
    try:
        with urlopen(request, timeout=PATIENCE) as answer:
            answer.read(64)
    except HTTPError as error:
        if error.code in (401, 403):
            hint = "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"
            return Check("tracking", "warn", f"{shown} asks for credentials ({error.code})", hint)
        return Check("tracking", "warn", f"{shown} answers {error.code}", "is this an MLflow server?")
    except (URLError, OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        return Check("tracking", "warn", redact(f"{shown} cannot be reached: {reason}"), _DOWN)
    return Check("tracking", "ok", f"{shown} answers")


def _database(name: str, uri: str, down: Status, hint: str) -> Check:
    shown = redact(uri)
    try:
        parts = urlsplit(uri)
        kind, port = parts.scheme.partition("+")[0], parts.port
    except ValueError as error:
        return Check(name, "fail", f"{shown}: {error}")
    if kind not in _PORTS:
        return Check(name, "fail", f"got {shown!r}, expected a URI of one of sqlite, {', '.join(_PORTS)}")
    drivers = [parts.scheme.partition("+")[2]] if "+" in parts.scheme else [*_DRIVERS[kind]]
    if not any(locate(driver) is not None for driver in drivers):
        wanted = drivers[0].replace("psycopg2", "psycopg2-binary")
        return Check(name, "fail", f"{shown}: no driver for {kind}", f"pip install {wanted}")
    try:
        address = (parts.hostname or "localhost", port or _PORTS[kind])
        socket.create_connection(address, timeout=PATIENCE).close()
    except OSError as error:
        return Check(name, down, f"{shown} cannot be reached: {error}", hint)
    return Check(name, "ok", f"{shown} accepts connections")


def _unwritable(folder: Path) -> str:
    """Why a file cannot be made in a folder, or in the nearest one above it that is there; empty where it can."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"\0" * 4096)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        return error.strerror or str(error)
    return ""
