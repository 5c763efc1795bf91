"""Weights of runs and registered models in the tracking store."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from bigopt.vocabulary.errors import RequestError

SCHEMES = ("runs:/", "models:/")
DEPTH = 3
"""How far below the given place weights are looked for."""

ENDINGS = (".safetensors", ".pt", ".pth", ".bin", ".ckpt")
FORMS = "runs:/<run id>[/<path>], models:/<name>/<version>, models:/<name>@<alias> or models:/<model id>"


def fetch(uri: str, into: Path, tracking_uri: str | None = None) -> Path:
    """Downloads the weights behind a URI of the tracking store, with their structure if they have one.

    A registered model stands for the run that logged it.

    Args:
        uri: ``runs:/…`` or ``models:/…``.
        into: an existing folder for the files.
        tracking_uri: the store; None takes ``MLFLOW_TRACKING_URI``, or ``mlflow.db`` in the working directory.

    Returns:
        A folder with ``structure.json`` and ``model.safetensors``, or a weight file.

    Raises:
        RequestError: no such store, run or model, or no weights there.
    """
    from bigopt.tracking.target import resolve

    target = resolve(tracking_uri or os.environ.get("MLFLOW_TRACKING_URI"), Path.cwd())
    if target.file is not None and not target.file.is_file():
        raise RequestError(f"weights {uri}: there is no tracking store {target.shown}")
    try:
        client = target.client()
        run_id, where = _place(client, uri)
        found = _find(client, run_id, where)
        if found is None:
            looked = f"run {run_id}" + (f" under {where}" if where else "")
            raise RequestError(f"weights {uri}: {looked} has no weights ({', '.join(ENDINGS)})")
        return _download(client, run_id, found, into)
    except RequestError:
        raise
    except Exception as error:  # whatever the store or the network answers
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
        raise RequestError(f"weights {uri}: not to be had from {target.shown}: {reason}") from error


def _place(client: Any, uri: str) -> tuple[str, str]:
    """Run and path inside its artifacts."""
    if found := re.fullmatch(r"runs:/+([0-9a-zA-Z]+)(?:/(.*))?", uri):
        return found[1], (found[2] or "").strip("/")
    if found := re.fullmatch(r"models:/+([^/@]+)/(\d+)", uri):
        return str(client.get_model_version(found[1], found[2]).run_id), ""
    if found := re.fullmatch(r"models:/+([^/@]+)@([^/]+)", uri):
        return str(client.get_model_version_by_alias(found[1], found[2]).run_id), ""
    if found := re.fullmatch(r"models:/+(m-[0-9a-f]+)", uri):
        return str(client.get_logged_model(found[1]).source_run_id), ""
    raise RequestError(f"weights {uri}: expected {FORMS}")


def _find(client: Any, run_id: str, where: str) -> str | None:
    """Path of the nearest weight file, a ``.safetensors`` before others."""
    if where.endswith(ENDINGS):
        return where
    level = [where]
    for _ in range(DEPTH):
        entries = [entry for folder in level for entry in client.list_artifacts(run_id, folder or None)]
        files = [entry.path for entry in entries if not entry.is_dir and entry.path.endswith(ENDINGS)]
        if files:
            return str(min(files, key=lambda path: ENDINGS.index(f".{path.rpartition('.')[2]}")))
        level = [entry.path for entry in entries if entry.is_dir]
    return None


def _download(client: Any, run_id: str, path: str, into: Path) -> Path:
    """The file; or its folder, if a structure lies beside it."""
    from bigopt.pipeline.structure import STRUCTURE, WEIGHTS
    from bigopt.store import inside

    folder, _, name = path.rpartition("/")
    local = inside(into, Path(client.download_artifacts(run_id, path, str(into))))
    beside = f"{folder}/{STRUCTURE}".lstrip("/")
    if name == WEIGHTS and any(entry.path == beside for entry in client.list_artifacts(run_id, folder or None)):
        client.download_artifacts(run_id, beside, str(into))
        return local.parent
    return local
