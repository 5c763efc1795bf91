"""Servers that are down, die or hang: training goes on, it is said once, and all arrives once when they are back."""

import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request

import numpy
import psutil
import pytest

from bigopt.store import read_json, write_json
from bigopt.tracking import sync
from bigopt.tracking.runs import PENDING
from bigopt.tracking.target import resolve
from bigopt.tracking.ui import open_ui, ui_command
from bigopt.vocabulary.errors import RequestError, RunFailed


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Server:
    """``bigopt ui``'s server on a store of its own, which can be killed and started again."""

    def __init__(self, project) -> None:
        self.port = free_port()
        self.uri = f"http://127.0.0.1:{self.port}"
        self.target = resolve(None, project)
        self.log = project / "server.log"
        self.process: subprocess.Popen | None = None

    def start(self) -> None:
        command, environment = ui_command(self.target, self.port)
        assert self.target.uri not in " ".join(command)
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                command, env=environment, stdout=log, stderr=log, start_new_session=True, cwd=self.log.parent
            )
        for _ in range(400):
            try:
                with urllib.request.urlopen(f"{self.uri}/health", timeout=1) as answer:
                    assert answer.read() == b"OK"
                    return
            except OSError:
                assert self.process.poll() is None, self.log.read_text()
                time.sleep(0.2)
        raise AssertionError(self.log.read_text())

    def kill(self) -> None:
        if self.process is not None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            self.process = None


@pytest.fixture
def server(project):
    server = Server(project)
    yield server
    server.kill()


def downs(caplog) -> list[str]:
    return [record.getMessage() for record in caplog.records if "cannot be used" in record.getMessage()]


def losses(client, run_id: str) -> list[tuple[int, float]]:
    return sorted((m.step, m.value) for m in client.get_metric_history(run_id, "fit/loss"))


def test_down_at_start_then_dies_mid_run_then_everything_arrives_once(
    project, started, client, server, onnx_file, caplog
):
    caplog.set_level(logging.WARNING)
    # down at the start of a sweep with one trial
    begun = time.monotonic()
    parent = started("sweep", uri=server.uri)
    assert parent.run_id.startswith(PENDING)
    child = started("sweep/0", uri=server.uri, parent=parent.run_id)
    for epoch in range(100):
        child.epoch("fit", epoch, {"loss": float(epoch)})
    child.model(onnx_file, numpy.ones((2, 3), numpy.float32))
    child.artifact(onnx_file, "files")
    child.finish("finished")
    parent.finish("finished")
    assert time.monotonic() - begun < 30
    assert len(downs(caplog)) == 2, caplog.text  # one line a tracker
    assert "bigopt report --sync" in downs(caplog)[0] and "\n" not in downs(caplog)[0]
    with pytest.raises(RunFailed, match="nothing is lost"):
        sync(project / "runs")

    # it comes up, and everything is there, once
    server.start()
    assert sync(project / "runs") == 2 + 100 + 2 + 2
    assert sync(project / "runs") == 0
    assert child.run_id and not child.run_id.startswith(PENDING)
    run = client.get_run(child.run_id)
    assert run.info.status == "FINISHED" and run.data.tags["mlflow.parentRunId"] == parent.run_id
    assert losses(client, child.run_id) == [(epoch, float(epoch)) for epoch in range(100)]
    assert len(run.outputs.model_outputs) == 1
    assert client.get_logged_model(run.outputs.model_outputs[0].model_id).status == "READY"

    # it dies in the middle of the next run
    caplog.clear()
    tracker = started("second", uri=server.uri)
    tracker.epoch("fit", 0, {"loss": 0.0})
    assert not tracker.run_id.startswith(PENDING)
    for _ in range(100):
        if losses(client, tracker.run_id):
            break
        time.sleep(0.1)
    server.kill()
    slowest = 0.0
    for epoch in range(1, 60):
        begun = time.monotonic()
        tracker.epoch("fit", epoch, {"loss": float(epoch)})
        slowest = max(slowest, time.monotonic() - begun)
        time.sleep(0.02)
    begun = time.monotonic()
    tracker.finish("failed", "the loss was not finite")
    assert slowest < 1 and time.monotonic() - begun < 10
    assert len(downs(caplog)) == 1, caplog.text
    assert client.get_run(tracker.run_id).info.status == "RUNNING"

    # and is back; a crash between sending and remembering sends a part twice, which changes nothing
    server.start()
    sent = project / "runs/second/tracking.sent"
    before = read_json(sent)
    assert sync(project) == 60
    write_json(sent, before)
    assert sync(project) == 60
    assert sync(project) == 0
    assert losses(client, tracker.run_id) == [(epoch, float(epoch)) for epoch in range(60)]
    assert client.get_run(tracker.run_id).info.status == "FAILED"
    assert len(client.search_runs([run.info.experiment_id])) == 3


def test_hanging_server_delays_nothing(project, started, caplog, monkeypatch):
    caplog.set_level(logging.WARNING)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "4")
    listener = socket.create_server(("127.0.0.1", 0))  # takes connections and never answers
    try:
        begun = time.monotonic()
        tracker = started(uri=f"http://127.0.0.1:{listener.getsockname()[1]}")
        for epoch in range(20):
            tracker.epoch("fit", epoch, {"loss": 1.0})
        assert time.monotonic() - begun < 2
        assert tracker.run_id.startswith(PENDING)
        begun = time.monotonic()
        tracker.finish("finished")
        assert time.monotonic() - begun < 2  # it hung just now: not asked again
        assert len(downs(caplog)) == 1
    finally:
        listener.close()


def test_unusable_store_costs_one_line(project, started, caplog):
    caplog.set_level(logging.WARNING)
    (project / "not.db").write_bytes(b"this is no database" * 100)
    tracker = started(uri="sqlite:///not.db")
    tracker.epoch("fit", 1, {"loss": 1.0})
    tracker.finish("finished")
    assert len(downs(caplog)) == 1
    assert (project / "not.db").read_bytes() == b"this is no database" * 100
    with pytest.raises(RunFailed, match="cannot be used"):
        sync(project)


def test_what_the_server_refuses_does_not_block_the_rest(project, started, client, caplog):
    caplog.set_level(logging.WARNING)
    tracker = started()
    run_id = tracker.run_id
    tracker._write(event="metrics", step=1, values={"bad//name": 1.0})
    tracker.epoch("fit", 2, {"loss": 2.0})
    (project / "torn.onnx").write_bytes(b"no model")
    tracker.model(project / "torn.onnx", numpy.zeros((2, 3), numpy.float32))
    tracker.artifact(project / "torn.onnx", "../out/")
    tracker.stage("baseline", {"val/accuracy": 0.5}, 1)
    tracker.finish("finished")
    assert client.get_run(run_id).info.status == "FINISHED"
    assert client.get_run(run_id).data.metrics["stage/baseline/val/accuracy"] == 0.5
    assert [a.path for a in client.list_artifacts(run_id)] == ["_"]
    assert [a.path for a in client.list_artifacts(run_id, "_/out")] == ["_/out/_"]
    assert len([record for record in caplog.records if "refused" in record.getMessage()]) == 1
    assert downs(caplog) == []


def test_locked_database_is_waited_for(project, started, client):
    import sqlite3

    tracker = started()
    assert tracker.run_id
    connection = sqlite3.connect(project / "mlflow.db", isolation_level=None, check_same_thread=False)
    connection.execute("BEGIN IMMEDIATE")
    tracker.epoch("fit", 1, {"loss": 1.0})
    threading.Timer(7, connection.execute, ["COMMIT"]).start()  # longer than SQLite's own patience of 5 s
    tracker.finish("finished")
    connection.close()
    assert client.get_run(tracker.run_id).info.status == "FINISHED"
    assert losses(client, tracker.run_id) == [(1, 1.0)]


def test_sync_closes_the_run_of_a_dead_process(project, started, client):
    tracker = started()
    run_id = tracker.run_id
    journal = project / "runs/run/tracking.jsonl"
    from bigopt.store import me

    journal.write_text(journal.read_text().replace(str(me()), str(me()).rpartition("-")[0] + "-1"))  # another start
    sync(project)
    assert client.get_run(run_id).info.status == "KILLED"


def test_missing_credentials_are_one_clear_line(project, started, monkeypatch):
    tracker = started(uri="postgresql://me:sesame99@127.0.0.1:1/db")
    tracker.finish("finished")
    with pytest.raises(RequestError, match="holds a secret; set MLFLOW_TRACKING_URI") as error:
        sync(project)
    assert "sesame99" not in str(error.value)
    with pytest.raises(RunFailed) as failed:
        sync(project, uri="postgresql://me:sesame99@127.0.0.1:1/db")
    assert "sesame99" not in str(failed.value)


def test_ui_of_a_server_is_its_own(capsys):
    assert open_ui("http://user:sesame99@127.0.0.1:5000") == 0
    assert capsys.readouterr().out == "MLflow: http://127.0.0.1:5000\n"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ui_ends_with_everything_that_it_started(project, number, tmp_path):
    fake = (
        "import subprocess, sys, time; p = subprocess.Popen(['sleep', '60']); print(p.pid, flush=True); time.sleep(60)"
    )
    script = f"""
import sys
from pathlib import Path
from bigopt.tracking import ui
ui.page = lambda target: ""
ui.ui_command = lambda target, port: ([sys.executable, "-c", {fake!r}], None)
sys.exit(ui.open_ui(None, 5999, Path({str(project)!r})))
"""
    shown = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert shown.stdout.readline() == "MLflow: http://127.0.0.1:5999 (Ctrl-C ends it)\n"
    grandchild = int(shown.stdout.readline())
    shown.send_signal(number)
    assert shown.wait(20) == 0
    shown.stdout.close()
    for _ in range(100):
        if not psutil.pid_exists(grandchild) or psutil.Process(grandchild).status() == psutil.STATUS_ZOMBIE:
            return
        time.sleep(0.05)
    raise AssertionError("a process of the server lives on")
