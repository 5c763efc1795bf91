"""MLflow's own pages, on this machine only."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from bigopt.tracking.target import Target, quiet, resolve

HOST = "127.0.0.1"


def open_ui(uri: str | None = None, port: int = 5000, working_dir: Path | None = None) -> int:
    """Serves MLflow's pages on 127.0.0.1 until it is interrupted.

    Args:
        uri: tracking URI; None means ``mlflow.db`` in the working directory. A server has pages of its own, whose
            address is printed.
        port: where to listen.
        working_dir: what relative paths start from; None means the current folder.

    Returns:
        Exit code: 0 when it was ended by Ctrl-C.

    Raises:
        RequestError: not a tracking URI.
    """
    target = resolve(uri, working_dir or Path.cwd())
    if target.uri.startswith(("http://", "https://")):
        print(f"MLflow: {target.shown}")
        return 0
    command, environment = ui_command(target, port)
    print(f"MLflow: http://{HOST}:{port} (Ctrl-C ends it)", flush=True)
    server = subprocess.Popen(command, env=environment)
    try:
        return server.wait()
    except KeyboardInterrupt:
        server.terminate()
        server.wait()
        return 0


def ui_command(target: Target, port: int) -> tuple[list[str], dict[str, str]]:
    """Command line and environment of the server; the store's address stays out of the list of processes."""
    quiet()
    if target.file is not None:
        target.client()  # creates a fresh store under the lock before the server's workers look at it
    environment = os.environ | {"MLFLOW_BACKEND_STORE_URI": target.uri}
    if target.artifacts is not None:
        environment["MLFLOW_DEFAULT_ARTIFACT_ROOT"] = target.artifacts.rpartition("/")[0]
    command = [sys.executable, "-m", "mlflow", "server", "--host", HOST, "--port", str(port), "--workers", "1"]
    return command, environment
