"""MLflow's own pages, on this machine only."""

from __future__ import annotations

import os
import signal
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
        Exit code: the server's, or 0 when it was ended by Ctrl-C or SIGTERM.

    Raises:
        RequestError: not a tracking URI.
    """
    target = resolve(uri, working_dir or Path.cwd())
    if target.uri.startswith(("http://", "https://")):
        print(f"MLflow: {target.shown}")
        return 0
    command, environment = ui_command(target, port)
    print(f"MLflow: http://{HOST}:{port}{page(target)} (Ctrl-C ends it)", flush=True)
    # in a session of its own: the server has children, which must all go when this process is asked to
    server = subprocess.Popen(command, env=environment, start_new_session=True)
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        return server.wait()
    except KeyboardInterrupt:
        return 0
    finally:
        signal.signal(signal.SIGTERM, before)
        _end(server)


def page(target: Target) -> str:
    """Where the pages have the table of runs; they open on traces of language models otherwise."""
    if target.file is None:
        return ""
    found = target.client().get_experiment_by_name(target.experiment)
    return "" if found is None else f"/#/experiments/{found.experiment_id}/runs?workflowType=machine_learning"


def ui_command(target: Target, port: int) -> tuple[list[str], dict[str, str]]:
    """Command line and environment of the server; the store's address stays out of the list of processes."""
    quiet()
    if target.file is not None:
        target.client()  # creates a fresh store under the lock before the server's workers look at it
    environment = os.environ | {"MLFLOW_BACKEND_STORE_URI": target.uri}
    environment.setdefault("MLFLOW_SERVER_ENABLE_JOB_EXECUTION", "false")  # several processes that bigopt never uses
    if target.artifacts is not None:
        environment["MLFLOW_DEFAULT_ARTIFACT_ROOT"] = target.artifacts.rpartition("/")[0]
    command = [sys.executable, "-m", "mlflow", "server", "--host", HOST, "--port", str(port), "--workers", "1"]
    return command, environment


def _end(server: subprocess.Popen[bytes]) -> None:
    """Ends the server with everything that it started."""
    if os.name != "posix":
        server.terminate()
        return
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(server.pid, number)
        except ProcessLookupError:
            break
        try:
            server.wait(10)
        except subprocess.TimeoutExpired:
            continue
