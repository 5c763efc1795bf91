"""The requests to MLflow, one function each; every one of them may be repeated without harm."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bigopt.store import Owner, me
from bigopt.tracking.names import key_of
from bigopt.tracking.target import Target

if TYPE_CHECKING:
    from mlflow import MlflowClient

PENDING = "pending-"
STATUS = {"finished": "FINISHED", "failed": "FAILED", "interrupted": "KILLED", "pruned": "KILLED"}
REFUSALS = {"INVALID_PARAMETER_VALUE", "BAD_REQUEST", "RESOURCE_DOES_NOT_EXIST", "MALFORMED_REQUEST", "INVALID_STATE"}
ERROR = "bigopt.error"
BATCH = 100  # MLflow's own limit of params and tags a request


class ParentMissing(Exception):
    """The sweep's own run has not been sent yet."""


class Unusable(Exception):
    """What should be sent is nothing that can be."""


def is_refusal(error: Exception) -> bool:
    """Whether this will never be accepted, in contrast to a store that is not there at the moment."""
    from mlflow.exceptions import MlflowException

    if isinstance(error, MlflowException):
        return error.error_code in REFUSALS
    return isinstance(error, Unusable)


def experiment(client: MlflowClient, target: Target) -> str:
    """Id of the experiment, created if it is not there; other processes may do the same at this moment."""
    from mlflow.exceptions import MlflowException

    found = client.get_experiment_by_name(target.experiment)
    if found is None:
        try:
            return str(client.create_experiment(target.experiment, artifact_location=target.artifacts))
        except MlflowException as error:
            found = client.get_experiment_by_name(target.experiment)
            if found is None:
                raise error
    if found.lifecycle_stage == "deleted":
        client.restore_experiment(found.experiment_id)
    return str(found.experiment_id)


def find(client: MlflowClient, experiment_id: str, uid: str) -> str | None:
    """MLflow's id of the run that we call ``uid``."""
    found = client.search_runs([experiment_id], f"tags.`bigopt.uid` = '{uid}'", max_results=1)
    return found[0].info.run_id if found else None


def parent(client: MlflowClient, experiment_id: str, given: str | None, orphans: bool) -> str | None:
    """MLflow's id of the parent run.

    Raises:
        ParentMissing: it was given by our own identity, and MLflow does not know it yet.
    """
    if given is None or not given.startswith(PENDING):
        return given
    found = find(client, experiment_id, given.removeprefix(PENDING))
    if found is None and not orphans:
        raise ParentMissing("the parent run has not been sent yet")
    return found


def create(client: MlflowClient, experiment_id: str, record: dict[str, Any], parent_id: str | None) -> str:
    """Creates the run; its identity is there from the first moment."""
    tags = {"bigopt.uid": record["uid"], "bigopt.owner": record["owner"]}
    if parent_id:
        tags["mlflow.parentRunId"] = parent_id
    run = client.create_run(experiment_id, start_time=record["time"], tags=tags, run_name=record["name"])
    return str(run.info.run_id)


def describe(client: MlflowClient, run_id: str, record: dict[str, Any]) -> None:
    """Parameters and tags."""
    from mlflow.entities import Param

    for params in _chunks(list(record["params"].items())):
        client.log_batch(run_id, params=[Param(key, value) for key, value in params])
    set_tags(client, run_id, record["tags"])


def reopen(client: MlflowClient, run_id: str, record: dict[str, Any]) -> None:
    """A run that was interrupted goes on; its parameters are known already, and how it ended before counts no more."""
    client.update_run(run_id, status="RUNNING")
    if ERROR in client.get_run(run_id).data.tags:
        client.delete_tag(run_id, ERROR)
    set_tags(client, run_id, record["tags"] | {"bigopt.owner": record["owner"], "bigopt.resumed": "true"})


def set_tags(client: MlflowClient, run_id: str, tags: dict[str, str]) -> None:
    """Sets tags."""
    from mlflow.entities import RunTag

    for chunk in _chunks(list(tags.items())):
        client.log_batch(run_id, tags=[RunTag(key, value) for key, value in chunk])


def log_metrics(client: MlflowClient, run_id: str, records: Sequence[dict[str, Any]]) -> None:
    """Metrics of several events in one request."""
    from mlflow.entities import Metric

    metrics = [
        Metric(key, float(value), record["time"], record["step"])
        for record in records
        for key, value in record["values"].items()
        if value is not None
    ]
    if metrics:
        client.log_batch(run_id, metrics=metrics)


def log_artifact(client: MlflowClient, run_id: str, folder: Path, record: dict[str, Any]) -> None:
    """A file or a folder; one that is no longer there is passed over."""
    path = folder / record["path"]
    where = key_of(record["folder"]) if record["folder"] else None
    if path.exists() and not os.access(path, os.R_OK):
        raise Unusable(f"{path} cannot be read")
    if path.is_dir():
        client.log_artifacts(run_id, str(path), where or key_of(path.name))
    elif path.is_file():
        client.log_artifact(run_id, str(path), where)


def finish(client: MlflowClient, run_id: str, record: dict[str, Any]) -> None:
    """Final status, and why."""
    tags = {"bigopt.status": record["status"]}
    if record["error"]:
        tags[ERROR] = record["error"]
    set_tags(client, run_id, tags)
    client.set_terminated(run_id, STATUS[record["status"]], end_time=record["time"])


def close_stale(client: MlflowClient, experiment_id: str) -> list[str]:
    """Closes the runs that processes of this machine left running when they died; returns their ids."""
    query = f"attributes.status = 'RUNNING' and tags.`bigopt.owner` LIKE '{me().host}-%'"
    closed = []
    try:
        running = client.search_runs([experiment_id], query, max_results=1000)
    except Exception as error:
        if not is_refusal(error):
            raise
        return []  # a server that cannot search like this: better to leave them than to stop
    for run in running:
        owner = Owner.parse(run.data.tags.get("bigopt.owner", ""))
        if owner is None or owner.alive() is not False:
            continue
        # It may have finished between the search and its death; nothing changes its status any more.
        if client.get_run(run.info.run_id).info.status == "RUNNING":
            close(client, run.info.run_id)
            closed.append(run.info.run_id)
    return closed


def close(client: MlflowClient, run_id: str) -> None:
    """Marks a run as killed because its process died without saying so."""
    set_tags(client, run_id, {"bigopt.status": "interrupted", ERROR: "its process died without finishing"})
    client.set_terminated(run_id, "KILLED", end_time=int(time.time() * 1000))


def _chunks(items: list[tuple[str, str]]) -> Iterator[list[tuple[str, str]]]:
    """Parts of a list, as large as one request may be."""
    for start in range(0, len(items), BATCH):
        yield items[start : start + BATCH]
