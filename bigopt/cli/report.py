"""``bigopt report``: the table of a run folder, its page rendered again, and what tracking has missed."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bigopt.store.paths import inside
from bigopt.vocabulary.errors import RequestError

FILE = "report.json"
ROOTS = ("outputs", "multirun")
"""Where runs and sweeps lie unless the configuration says otherwise."""


def main(argv: Sequence[str]) -> int:
    """Runs the subcommand.

    Raises:
        RequestError: no run folder, or a damaged report.
        RunFailed: a tracking server cannot be reached.
    """
    parser = argparse.ArgumentParser(prog="bigopt report", description="Shows what a run has come to.")
    parser.add_argument("folder", nargs="?", help="run folder; the newest one under outputs/ unless given")
    parser.add_argument("--html", action="store_true", help="render report.html again")
    parser.add_argument("--json", action="store_true", help="print report.json")
    parser.add_argument("--sync", action="store_true", help="send what the tracking server missed while it was down")
    parser.add_argument("--uri", help="with --sync: the tracking URI, where it holds credentials")
    args = parser.parse_args(list(argv))
    if args.folder is not None and not Path(args.folder).is_dir():
        raise RequestError(f"report: got {args.folder!r}, expected a run folder; there is no such folder")
    if args.sync:
        return _sync(
            [Path(args.folder)] if args.folder else [root for root in map(Path, ROOTS) if root.is_dir()], args.uri
        )
    folder = Path(args.folder) if args.folder else newest(Path(ROOTS[0]))
    report = read(folder)
    if args.html:
        from bigopt.report import render_html

        print(render_html(report, folder))
        return 0
    _show(report, folder, args.json)
    return 0


def newest(root: Path) -> Path:
    """The run folder under a root whose report was written last.

    Raises:
        RequestError: there is none.
    """
    found = sorted(root.rglob(FILE), key=lambda file: file.stat().st_mtime) if root.is_dir() else []
    if not found:
        raise RequestError(f"report: no {FILE} under {root}/; name a run folder: bigopt report <run folder>")
    return found[-1].parent


def read(folder: Path) -> dict[str, Any]:
    """The report of a run folder.

    Raises:
        RequestError: there is none, or it is damaged.
    """
    from bigopt.store.atomic import read_json

    file = inside(folder, FILE)
    if not file.is_file():
        raise RequestError(f"report: {folder} holds no {FILE}; the run has not reached its first row, or is no run")
    try:
        report = read_json(file)
    except (OSError, ValueError) as error:
        raise RequestError(f"{file}: damaged: {str(error).splitlines()[0]}") from error
    if not isinstance(report, dict) or not isinstance(report.get("stages"), list):
        raise RequestError(f"{file}: damaged: expected a report with stages")
    return report


def _show(report: dict[str, Any], folder: Path, as_json: bool) -> None:
    if as_json:
        import json

        print(json.dumps(report, indent=2))
        return
    from rich.console import Console

    from bigopt.report import render_summary

    shown = render_summary(report, folder)
    if isinstance(shown, str):
        print(shown)
    else:
        Console().print(shown)


def _sync(folders: Sequence[Path], uri: str | None) -> int:
    from bigopt.tracking import sync

    if not folders:
        raise RequestError(f"report: neither {' nor '.join(ROOTS)} is here; name a run folder, or one above several")
    count = sum(sync(folder, uri) for folder in folders)
    print(f"{count} events sent" if count else "nothing was left to send")
    return 0
