"""Storages that need a server, started for the measurement and gone afterwards."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@contextmanager
def postgresql() -> Iterator[str | None]:
    """A fresh cluster of Debian's package with its usual settings; gives its address, or None without the package."""
    homes = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    if not homes:
        yield None
        return
    root = os.getuid() == 0
    user = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"] if root else []
    folder, port = Path(tempfile.mkdtemp(prefix="bigopt-postgresql-")), free_port()
    if root:
        shutil.chown(folder, "postgres", "postgres")
    data = folder / "data"

    def command(*words: str) -> None:
        subprocess.run([*user, *words], check=True, capture_output=True, cwd="/")

    command(f"{homes[0]}/initdb", "-D", str(data), "-A", "trust", "-U", "bigopt")
    control = (f"{homes[0]}/pg_ctl", "-D", str(data), "-l", str(folder / "log"), "-w")
    command(*control, "-o", f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories=''", "start")
    try:
        yield f"postgresql+psycopg://bigopt@127.0.0.1:{port}/postgres"
    finally:
        command(*control, "-m", "immediate", "stop")
        shutil.rmtree(folder)


@contextmanager
def proxy(folder: str) -> Iterator[str]:
    """Optuna's gRPC proxy in front of a journal; gives its address."""
    port = free_port()
    process = multiprocessing.get_context("spawn").Process(target=_serve, args=(folder, port), daemon=True)
    process.start()
    try:
        for _ in range(300):
            with socket.socket() as attempt:
                if attempt.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.1)
        yield f"grpc://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.join()


def _serve(folder: str, port: int) -> None:
    from optuna.storages import JournalStorage, run_grpc_proxy_server
    from optuna.storages.journal import JournalFileBackend

    run_grpc_proxy_server(JournalStorage(JournalFileBackend(f"{folder}/journal")), host="127.0.0.1", port=port)
