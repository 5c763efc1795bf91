"""Sends a run's journal to MLflow, each event once, however often and by whomever it is called."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bigopt.store import Journal, lock, read_json, write_json
from bigopt.tracking import runs
from bigopt.tracking.target import Target
from bigopt.vocabulary.errors import RequestError

if TYPE_CHECKING:
    from mlflow import MlflowClient

JOURNAL = "tracking.jsonl"
SENT = "tracking.sent"
LARGEST_BATCH = 1000  # MLflow's own limit of metrics a request

Record = dict[str, Any]


@dataclass
class State:
    """How far a journal has been sent.

    Attributes:
        offset: bytes of the journal that MLflow has.
        uid: identity of the run that the events belong to, given by us.
        run_id: MLflow's.
        experiment_id: MLflow's.
        described: parameters and tags are there too.
    """

    offset: int = 0
    uid: str = ""
    run_id: str = ""
    experiment_id: str = ""
    described: bool = False


class Sender:
    """Sends what is unsent in a run's folder.

    Repeating is harmless: metrics carry the time at which they were journalled, so a store that has them already
    knows them again; runs and models are looked up by our own identity before they are created.

    Args:
        folder: the run's folder.
        target: where to.
        orphans: send a run whose parent cannot be found without it, instead of waiting for the parent.
    """

    def __init__(self, folder: Path, target: Target, orphans: bool = False) -> None:
        self.folder = folder
        self.target = target
        self.orphans = orphans
        self.journal = Journal(folder / JOURNAL)
        self.refused: list[str] = []
        self._client: MlflowClient | None = None

    def state(self) -> State:
        """How far it got."""
        try:
            return State(**read_json(self.folder / SENT))
        except (FileNotFoundError, RequestError, TypeError):
            return State()  # sent again from the start, which changes nothing at the other end

    def unsent(self) -> int:
        """Number of events that MLflow does not have yet."""
        return sum(len(records) for records, _ in self._batches(self.state().offset))

    def send(self) -> int:
        """Sends what is unsent; returns the number of events.

        Raises:
            Exception: whatever MLflow raises when it cannot be reached; what was sent until then is remembered.
        """
        count = 0
        with lock(self.folder / SENT):
            state = self.state()
            for records, end in self._batches(state.offset):
                self._deliver(records, state)
                state.offset = end
                self.remember(state)
                count += len(records)
        return count

    def _deliver(self, records: list[Record], state: State) -> None:
        client = self._connected()
        try:
            _deliver(self, client, records, state)
        except Exception as error:
            if records[0]["event"] == "start" or not runs.is_refusal(error):
                raise
            self.refused.append(f"{records[0]['event']}: {error}")  # repeating it would block all that follows

    def _connected(self) -> MlflowClient:
        if self._client is None:
            self._client = self.target.client()
        return self._client

    def remember(self, state: State) -> None:
        """Writes down how far it got."""
        write_json(self.folder / SENT, asdict(state))

    def _batches(self, offset: int) -> Iterator[tuple[list[Record], int]]:
        """Unsent records with the offset behind them; neighbouring metrics together, everything else alone."""
        batch: list[Record] = []
        size = 0
        for record, end in self._records(offset):
            values = len(record.get("values", ()))
            if batch and (record["event"] != "metrics" or size + values > LARGEST_BATCH):
                yield batch, offset
                batch, size = [], 0
            offset = end
            if record["event"] != "metrics":
                yield [record], offset
                continue
            batch.append(record)
            size += values
        if batch:
            yield batch, offset

    def _records(self, offset: int) -> Iterator[tuple[Record, int]]:
        """Complete records behind an offset, each with its own end."""
        return ((record, end) for record, end in self.journal.records(offset) if "event" in record)


def _deliver(sender: Sender, client: MlflowClient, records: list[Record], state: State) -> None:
    """One batch: metrics, or a single other event."""
    record = records[0]
    match record["event"]:
        case "start":
            _start(sender, client, record, state)
        case "metrics":
            runs.log_metrics(client, state.run_id, records)
        case "artifact":
            runs.log_artifact(client, state.run_id, sender.folder, record)
        case "model":
            from bigopt.tracking.onnx_model import log_model

            log_model(client, state.run_id, state.experiment_id, sender.folder, record)
        case "finish":
            runs.finish(client, state.run_id, record)


def _start(sender: Sender, client: MlflowClient, record: Record, state: State) -> None:
    """Creates the run, or goes on with the one that is there."""
    if state.uid == record["uid"] and state.described:
        runs.reopen(client, state.run_id, record)
    else:
        state.uid, state.run_id, state.described = record["uid"], "", False
        state.experiment_id = runs.experiment(client, sender.target)
        state.run_id = runs.find(client, state.experiment_id, state.uid) or _created(sender, client, record, state)
        sender.remember(state)
        runs.describe(client, state.run_id, record)
        state.described = True
    runs.close_stale(client, state.experiment_id)


def _created(sender: Sender, client: MlflowClient, record: Record, state: State) -> str:
    parent = runs.parent(client, state.experiment_id, record["parent"], sender.orphans)
    return runs.create(client, state.experiment_id, record, parent)
