"""Sends what servers that were down have missed."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from bigopt.store import MASK, Owner, redact, register_secrets
from bigopt.tracking import runs
from bigopt.tracking.sender import JOURNAL, Sender
from bigopt.tracking.target import Target, resolve
from bigopt.vocabulary.errors import RequestError, RunFailed


def sync(folder: str | Path, uri: str | None = None) -> int:
    """Sends what is unsent in a run's folder, or in every run's folder under it, once.

    A run whose process died without finishing is closed as killed.

    Args:
        folder: a run's folder, or one above several.
        uri: tracking URI with credentials, where the runs' own held some (they are never written down); None takes
            ``MLFLOW_TRACKING_URI`` from the environment for those, and each run's own URI for the others.

    Returns:
        The number of events sent.

    Raises:
        RequestError: there is no tracked run, or a URI's credentials are missing.
        RunFailed: a server cannot be reached; the rest was sent and nothing is lost.
    """
    folder = Path(folder)
    journals = sorted(folder.rglob(JOURNAL), key=lambda path: (len(path.parts), path))  # parents before children
    if not journals:
        raise RequestError(f"{folder}: holds no tracked run (no {JOURNAL} in it or under it)")
    senders = [sender for path in journals if (sender := _sender(path.parent, uri)) is not None]
    count, problems = 0, []
    for sender in senders:
        try:
            count += _send(sender)
        except RequestError:
            raise
        except Exception as error:
            lines = str(error).strip().splitlines() or [type(error).__name__]
            problems.append(f"{sender.folder}: {sender.target.shown} cannot be used ({redact(lines[0])[:200]})")
    if problems:
        raise RunFailed("\n".join((*problems, "nothing is lost; try again when it is back")))
    return count


def _send(sender: Sender) -> int:
    try:
        count = sender.send()
    except runs.ParentMissing:
        sender.orphans = True  # every folder above was sent before this one, so the parent is not here
        count = sender.send()
    _close_if_dead(sender)
    return count


def _sender(folder: Path, uri: str | None) -> Sender | None:
    """None when the journal holds no run, or everything was sent."""
    start = _last(folder, "start")
    if start is None:
        return None
    shown = str(start["uri"])
    if MASK in shown or uri is not None:
        uri = uri or os.environ.get("MLFLOW_TRACKING_URI")
        if uri is None:
            raise RequestError(f"{folder}: its tracking URI {shown} holds a secret; set MLFLOW_TRACKING_URI to it")
        register_secrets(uri)
        target = resolve(uri, folder, start["experiment"])
        target = Target(target.uri, target.experiment, start["artifacts"] or target.artifacts)
    else:
        target = Target(shown, start["experiment"], start["artifacts"])
    return Sender(folder, target)


def _close_if_dead(sender: Sender) -> None:
    start, finish = _last(sender.folder, "start"), _last(sender.folder, "finish")
    state = sender.state()
    if start is None or not state.run_id or (finish is not None and finish["time"] >= start["time"]):
        return
    owner = Owner.parse(start["owner"])
    if owner is None or owner.alive() is not False:
        return
    client = sender.target.client()
    if client.get_run(state.run_id).info.status == "RUNNING":
        runs.close(client, state.run_id)


def _last(folder: Path, event: str) -> dict[str, Any] | None:
    from bigopt.store import Journal

    found = None
    for record in Journal(folder / JOURNAL).read():
        if record.get("event") == event:
            found = record
    return found
