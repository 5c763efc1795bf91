"""ONNX models of the tracking store, as files; no code that the store holds is run."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from bigopt.store import inside
from bigopt.tracking.target import resolve
from bigopt.vocabulary.errors import RequestError

FILE = "model.onnx"
FORMS = "runs:/<run id>[/<path>], models:/<name>/<version>, models:/<name>@<alias> or models:/<model id>"


def fetch_onnx(uri: str, into: Path, tracking_uri: str | None = None) -> Path:
    """Downloads the ONNX file behind a URI of the tracking store.

    Args:
        uri: ``runs:/…`` or ``models:/…``; a run without a path stands for its ``model.onnx``.
        into: an existing folder for the files.
        tracking_uri: the store; None takes ``MLFLOW_TRACKING_URI``, or ``mlflow.db`` in the working directory.

    Raises:
        RequestError: no such store, run or model, or no ONNX flavour there.
    """
    target = resolve(tracking_uri or os.environ.get("MLFLOW_TRACKING_URI"), Path.cwd())
    if target.file is not None and not target.file.is_file():
        raise RequestError(f"{uri}: there is no tracking store {target.shown}")
    if re.fullmatch(r"runs:/+[0-9a-zA-Z]+/?", uri):
        uri = f"{uri.rstrip('/')}/{FILE}"
    if not re.fullmatch(r"runs:/+[0-9a-zA-Z]+/.+|models:/+([^/@]+(/\d+|@[^/]+)|m-[0-9a-f]+)", uri):
        raise RequestError(f"{uri}: expected {FORMS}")
    try:
        place = _place(target.client(), uri)
        from mlflow.artifacts import download_artifacts

        local = Path(
            download_artifacts(artifact_uri=place, dst_path=str(into), tracking_uri=target.uri, registry_uri=target.uri)
        )
    except Exception as error:  # whatever the store or the network answers
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
        raise RequestError(f"{uri}: not to be had from {target.shown}: {reason}") from error
    return _onnx_in(inside(into, local), uri)


def _place(client: Any, uri: str) -> str:
    """Where a registered model's files lie, asked of the store that is meant: MLflow's own way follows its globals."""
    found = re.fullmatch(r"models:/+([^/@]+)(?:/(\d+)|@([^/]+))", uri)
    if found is None:
        return uri
    name, version, alias = found.groups()
    if version is None:
        version = client.get_model_version_by_alias(name, alias).version
    place: str = client.get_model_version_download_uri(name, version)
    return place


def _onnx_in(local: Path, uri: str) -> Path:
    """The ONNX file among what was downloaded: the file itself, or what the folder's ``MLmodel`` names."""
    import yaml

    if local.is_file() and local.suffix == ".onnx":
        return local
    description = local / "MLmodel"
    flavours: dict[str, Any] = {}
    if description.is_file():
        flavours = (yaml.safe_load(description.read_text()) or {}).get("flavors") or {}
        named = inside(local, str((flavours.get("onnx") or {}).get("data", FILE)))
        if "onnx" in flavours and named.is_file():
            return named
    elif (local / FILE).is_file():
        return local / FILE
    has = f"the flavours {', '.join(sorted(flavours))}" if flavours else "no ONNX file"
    raise RequestError(f"{uri}: has {has}; only an ONNX flavour is loaded, since others run the code they bring")
