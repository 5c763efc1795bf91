"""``bigopt ui``: MLflow's pages of this folder's runs, on 127.0.0.1."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from bigopt.vocabulary.errors import RequestError

HIGHEST_PORT = 65535


def main(argv: Sequence[str]) -> int:
    """Runs the subcommand until it is interrupted.

    Raises:
        RequestError: not a port, or nothing that MLflow can track to.
    """
    parser = argparse.ArgumentParser(prog="bigopt ui", description="Opens the MLflow pages on 127.0.0.1.")
    parser.add_argument("--uri", help="tracking URI as in tracking.uri; mlflow.db in this folder unless given")
    parser.add_argument("--port", type=int, default=5000, help="where to listen (default: %(default)s)")
    args = parser.parse_args(list(argv))
    if not 0 < args.port <= HIGHEST_PORT:
        raise RequestError(f"--port: got {args.port}, expected a number from 1 to {HIGHEST_PORT}")
    from bigopt.tracking import open_ui

    return open_ui(args.uri, port=args.port)
