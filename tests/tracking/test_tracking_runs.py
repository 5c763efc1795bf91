"""Runs as MLflow shows them: status, params, metrics, artifacts, model, resumption, parents, runs of dead processes."""

import json
import logging
import os
import signal
import subprocess
import sys
import time

import numpy
import pytest

from bigopt.store import Journal
from bigopt.tracking import NullTracker, make_tracker, sync
from bigopt.tracking.names import flatten, key_of, metrics_of
from bigopt.vocabulary.errors import RequestError
from bigopt.vocabulary.settings import Tracking

FIRST_RUNS = """
import os, sys, traceback
from pathlib import Path
import mlflow, mlflow.tracking, mlflow.store.tracking.sqlalchemy_store  # once, so that all get to the store together
from bigopt.tracking import make_tracker
from bigopt.vocabulary.settings import Tracking

project, children = Path(sys.argv[1]), []
for worker in range(8):
    pid = os.fork()
    if pid == 0:
        try:
            folder = project / "runs" / str(worker)
            folder.mkdir(parents=True)
            tracker = make_tracker(Tracking(), folder, project)
            tracker.start(str(worker), {"worker": worker}, {})
            for epoch in range(10):
                tracker.epoch("fit", epoch, {"loss": epoch + worker / 10})
            tracker.finish("finished")
            assert not tracker.run_id.startswith("pending"), "not sent"
            os._exit(0)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(1)
    children.append(pid)
assert [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children] == [0] * 8
"""

DIES = """
import sys, time
from pathlib import Path
from bigopt.tracking import make_tracker
from bigopt.vocabulary.settings import Tracking
project = Path(sys.argv[1])
folder = project / "runs" / "dies"
folder.mkdir(parents=True)
tracker = make_tracker(Tracking(), folder, project)
tracker.start("dies", {}, {})
print(tracker.run_id, flush=True)
tracker.epoch("fit", 1, {"loss": 1.0})
time.sleep(60)
"""


def only_run(client, name="bigopt"):
    (run,) = client.search_runs([client.get_experiment_by_name(name).experiment_id])
    return run


@pytest.mark.parametrize(
    ("status", "expected"),
    [("finished", "FINISHED"), ("failed", "FAILED"), ("interrupted", "KILLED"), ("pruned", "KILLED")],
)
def test_status(started, client, status, expected):
    tracker = started()
    tracker.finish(status, None if status == "finished" else "it was like this")
    run = client.get_run(tracker.run_id)
    assert run.info.status == expected
    assert run.data.tags["bigopt.status"] == status
    assert run.data.tags.get("bigopt.error") == (None if status == "finished" else "it was like this")
    assert run.info.end_time >= run.info.start_time


def test_params_metrics_tags_and_artifacts(started, client, project):
    tracker = started(params={"model": {"name": "mlp", "widths": [3, 2], "weights": None}, "seed": 0, "flag": True})
    for epoch in range(1, 151):
        tracker.epoch("baseline", epoch, {"val/loss": 1 / epoch, "lr": float("nan"), "n": epoch})
    tracker.stage("quantization", {"val/accuracy": 0.75, "latency_ms.batch_1.p50": 0.1, "drop": None}, 2)
    (project / "runs/run/report.json").write_text("{}")
    (project / "runs/run/plots").mkdir()
    (project / "runs/run/plots/a.png").write_bytes(b"png")
    tracker.artifact(project / "runs/run/report.json")
    tracker.artifact(project / "runs/run/report.json", "reports/final")
    tracker.artifact(project / "runs/run/plots")
    tracker.artifact(project / "runs/run/missing.csv")
    tracker.finish("finished")
    run = client.get_run(tracker.run_id)
    assert run.data.params == {
        "model.name": "mlp",
        "model.widths": "[3, 2]",
        "model.weights": "null",
        "seed": "0",
        "flag": "true",
    }
    history = client.get_metric_history(tracker.run_id, "baseline/val/loss")
    assert [(m.step, m.value) for m in sorted(history, key=lambda m: m.step)] == [(e, 1 / e) for e in range(1, 151)]
    assert run.data.metrics == {
        "baseline/val/loss": 1 / 150,
        "baseline/n": 150.0,
        "stage/quantization/val/accuracy": 0.75,
        "stage/quantization/latency_ms.batch_1.p50": 0.1,
    }
    assert run.data.tags["overrides"] == "seed=1"
    assert run.data.tags["version.bigopt"] and run.data.tags["version.torch"]
    assert {a.path for a in client.list_artifacts(tracker.run_id)} == {"report.json", "reports", "plots"}
    assert [a.path for a in client.list_artifacts(tracker.run_id, "plots")] == ["plots/a.png"]
    assert (project / "mlruns/bigopt" / tracker.run_id / "artifacts/reports/final/report.json").read_text() == "{}"
    assert sync(project) == 0


def test_git_commit_is_a_tag(started, client, project):
    git = ["git", "-C", str(project), "-c", "user.name=n", "-c", "user.email=e@example.org"]
    (project / "code.py").write_text("x = 1\n")
    for command in (["init", "-q"], ["add", "code.py"], ["commit", "-qm", "First"]):
        subprocess.run([*git, *command], check=True)
    commit = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True).stdout.strip()
    (project / "code.py").write_text("x = 2\n")
    tracker = started()
    tracker.finish("finished")
    tags = client.get_run(tracker.run_id).data.tags
    assert tags["mlflow.source.git.commit"] == tags["git.commit"] == commit and len(commit) == 40
    assert tags["git.dirty"] == "true"


def test_limits_of_mlflow_are_kept(started, client):
    params = {f"p{i}": i for i in range(250)} | {
        "long": "x" * 7000,
        "k" * 300: 1,
        "k" * 301: 2,
        "a=b,ü": 3,
        "/x//y/..": 4,
    }
    tracker = started(params=params)
    tracker.epoch("fit", 0, {"m" * 400: 1.0, "a%b": 2.0})
    tracker.finish("failed", "e" * 20_000)
    run = client.get_run(tracker.run_id)
    assert len(run.data.params) == 255 and run.data.params["p249"] == "249"
    assert run.data.params["long"] == "x" * 5999 + "…"
    assert sorted(run.data.params[k] for k in run.data.params if k.startswith("kkk")) == ["1", "2"]
    assert run.data.params["a_b__"] == "3" and run.data.params["_x/_/y/_".replace("_x", "_/x")] == "4"
    assert run.data.metrics["fit/a_b"] == 2.0 and len(run.data.metrics) == 2
    assert run.data.tags["bigopt.error"] == "e" * 7999 + "…"


def test_names():
    assert key_of("a/../b//c.d e:f-g") == "a/_/b/_/c.d e:f-g"
    assert len(key_of("x" * 999)) == 250 and key_of("x" * 999) != key_of("x" * 998)
    assert flatten({"a": {}, "b": {"c": {"d": (1, 2)}}, "e": {"f": {}}}) == {"a": "{}", "b.c.d": "[1, 2]", "e.f": "{}"}
    values = {"a": numpy.float32(0.5), "b": float("inf"), "c": None, "d": 3, "e": "text", "f": numpy.int64(2)}
    assert metrics_of("s", values) == {"s/a": 0.5, "s/d": 3.0, "s/f": 2.0}


def test_logged_model_gives_what_onnx_runtime_gives(started, client, onnx_file):
    import mlflow
    import onnxruntime

    tracker = started()
    example = numpy.linspace(-1, 1, 15, dtype=numpy.float32).reshape(5, 3)
    tracker.model(onnx_file, example)
    tracker.finish("finished")
    (output,) = client.get_run(tracker.run_id).outputs.model_outputs
    x = numpy.random.default_rng(1).normal(size=(7, 3)).astype(numpy.float32)
    expected = onnxruntime.InferenceSession(str(onnx_file), providers=["CPUExecutionProvider"]).run(None, {"x": x})[0]
    old = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(client.tracking_uri)
    try:
        for uri in (f"runs:/{tracker.run_id}/model", f"models:/{output.model_id}"):
            model = mlflow.pyfunc.load_model(uri)
            assert model.loader_module == "mlflow.onnx"
            assert numpy.array_equal(model.predict(x)["y"], expected)
        assert model.input_example.tolist() == example[:2].tolist()
        assert str(model.metadata.signature.inputs) == "[Tensor('float32', (-1, 3))]"
        assert str(model.metadata.signature.outputs) == "[Tensor('float32', (-1, 2))]"
        files = os.listdir(mlflow.artifacts.download_artifacts(f"models:/{output.model_id}"))
    finally:
        mlflow.set_tracking_uri(old)
    assert "model.onnx" in files and not [name for name in files if name.endswith((".pkl", ".py", ".data"))]


def test_switches(started, client, onnx_file):
    tracker = started(artifacts=False, log_model=False, experiment="other / name")
    tracker.artifact(onnx_file)
    tracker.model(onnx_file, numpy.zeros((1, 3), numpy.float32))
    tracker.finish("finished")
    run = only_run(client, "other / name")
    assert client.list_artifacts(run.info.run_id) == [] and not run.outputs.model_outputs
    assert run.info.artifact_uri.endswith(f"/mlruns/other-name/{run.info.run_id}/artifacts")


def test_interrupted_run_goes_on_and_finished_one_does_not(started, client):
    first = started(params={"a": 1})
    first.epoch("fit", 1, {"loss": 2.0})
    first.finish("interrupted", "its process died")
    assert client.get_run(first.run_id).data.tags["bigopt.error"] == "its process died"
    second = started(params={"a": 2})
    assert second.run_id == first.run_id
    assert client.get_run(first.run_id).info.status == "RUNNING"
    assert "bigopt.error" not in client.get_run(first.run_id).data.tags
    second.epoch("fit", 2, {"loss": 1.0})
    second.finish("finished")
    run = only_run(client)
    assert run.info.status == "FINISHED" and run.data.params == {"a": "1"} and run.data.tags["bigopt.resumed"] == "true"
    assert [m.step for m in client.get_metric_history(run.info.run_id, "fit/loss")] == [1, 2]
    third = started()
    third.finish("finished")
    assert third.run_id != first.run_id


def test_child_knows_its_parent(started, client):
    parent = started("sweep")
    child = started("trial", parent=parent.run_id)
    child.finish("pruned")
    parent.finish("finished")
    assert client.get_run(child.run_id).data.tags["mlflow.parentRunId"] == parent.run_id


def test_run_of_a_dead_process_is_closed_and_of_a_living_one_is_not(started, client, project):
    dies = subprocess.Popen([sys.executable, "-c", DIES, str(project)], stdout=subprocess.PIPE, text=True)
    dead_id = dies.stdout.readline().strip()
    living = started("living")
    assert client.get_run(dead_id).info.status == client.get_run(living.run_id).info.status == "RUNNING"
    dies.send_signal(signal.SIGKILL)
    dies.wait()
    dies.stdout.close()
    started("next").finish("finished")
    assert client.get_run(dead_id).info.status == "KILLED"
    assert "died" in client.get_run(dead_id).data.tags["bigopt.error"]
    assert client.get_run(living.run_id).info.status == "RUNNING"
    living.finish("finished")
    assert client.get_run(living.run_id).info.status == "FINISHED"


def test_eight_first_runs_on_a_fresh_store(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", FIRST_RUNS, str(tmp_path)], capture_output=True, text=True, timeout=200
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "WARNING" not in done.stderr and "ERROR" not in done.stderr, done.stderr
    import sqlite3

    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=f"sqlite:///{tmp_path}/mlflow.db")
    runs = client.search_runs([client.get_experiment_by_name("bigopt").experiment_id])
    assert sorted(run.data.params["worker"] for run in runs) == list("01234567")
    assert {run.info.status for run in runs} == {"FINISHED"}
    assert all(run.data.metrics["fit/loss"] == 9 + int(run.data.params["worker"]) / 10 for run in runs)
    connection = sqlite3.connect(tmp_path / "mlflow.db")
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert connection.execute("select count(*) from metrics").fetchone() == (80,)
    connection.close()


def test_calls_do_not_wait(started):
    tracker = started()
    begun = time.perf_counter()
    for epoch in range(200):
        tracker.epoch("fit", epoch, {"loss": 1.0, "accuracy": 0.5})
    spent = (time.perf_counter() - begun) / 200
    tracker.finish("finished")
    assert spent < 0.02  # seconds a call; about 0.001 on an idle machine


def test_a_folder_that_cannot_be_written_costs_one_warning(project, caplog):
    (project / "file").write_text("")
    tracker = make_tracker(Tracking(), project / "file", project)
    with caplog.at_level(logging.WARNING):
        tracker.start("r", {}, {})
        for epoch in range(3):
            tracker.epoch("fit", epoch, {"loss": 1.0})
        tracker.model(project / "m.onnx", numpy.zeros((1, 3)))
        tracker.finish("finished")
    assert len([record for record in caplog.records if "cannot be written" in record.message]) == 1


def test_torn_tail_of_the_journal_is_passed_over(started, client, project):
    tracker = started()
    tracker.epoch("fit", 1, {"loss": 1.0})
    tracker.finish("interrupted")
    journal = project / "runs/run/tracking.jsonl"
    with open(journal, "ab") as file:
        file.write(b'{"event": "metrics", "step": 2, "va')
    assert sync(project) == 0
    Journal(journal).append({"event": "metrics", "time": 1, "step": 3, "values": {"fit/loss": 3.0}})
    assert sync(project / "runs/run") == 1
    assert [m.step for m in client.get_metric_history(tracker.run_id, "fit/loss")] == [3, 1]


def test_sent_again_from_the_start_changes_nothing(started, client, project, onnx_file):
    tracker = started(params={"a": 1})
    for epoch in range(20):
        tracker.epoch("fit", epoch, {"loss": 1.0 * epoch})
    tracker.artifact(onnx_file)
    tracker.model(onnx_file, numpy.zeros((2, 3), numpy.float32))
    tracker.finish("finished")
    (project / "runs/run/tracking.sent").unlink()
    assert sync(project) == 24
    run = only_run(client)
    assert run.info.run_id == tracker.run_id and run.info.status == "FINISHED"
    assert len(client.get_metric_history(tracker.run_id, "fit/loss")) == 20
    assert len(run.outputs.model_outputs) == 1


def test_no_tracking(project):
    tracker = make_tracker(Tracking(name="none"), project / "x", project)
    assert isinstance(tracker, NullTracker) and tracker.run_id is None
    tracker.start("r", {}, {})
    tracker.finish("finished")
    assert not (project / "x").exists()


@pytest.mark.parametrize("uri", ["mlflow.db", "sqlit:///x", "ftp://h/x", "sqlite:"])
def test_wrong_uri_is_one_clear_line(project, uri):
    with pytest.raises(RequestError, match=r"tracking\.uri: got .* expected a URI that starts with") as error:
        make_tracker(Tracking(uri=uri), project, project)
    assert len(error.value.problems) == 1


def test_sync_without_runs_says_so(tmp_path):
    with pytest.raises(RequestError, match="holds no tracked run"):
        sync(tmp_path)


def test_relative_sqlite_uri_starts_from_the_working_directory(project, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    tracker = make_tracker(Tracking(uri="sqlite:///sub/t.db"), project / "r", project)
    assert tracker.target.uri == f"sqlite:///{project}/sub/t.db"
    assert tracker.target.artifacts == (project / "sub/mlruns/bigopt").as_uri()


def test_importing_tracking_does_not_import_mlflow():
    script = (
        "import sys, json, bigopt.tracking; print(json.dumps(sorted({'mlflow', 'torch', 'numpy'} & set(sys.modules))))"
    )
    assert json.loads(subprocess.run([sys.executable, "-c", script], capture_output=True, text=True).stdout) == []


def test_the_link_leads_to_the_table_of_runs(project):
    from bigopt.tracking import ui
    from bigopt.tracking.target import resolve

    target = resolve(None, project)
    assert ui.page(target) == ""
    tracker = make_tracker(Tracking(), project / "runs" / "one", project)
    tracker.start("one", {}, {})
    tracker.finish("finished")
    id = target.client().get_experiment_by_name("bigopt").experiment_id
    assert ui.page(target) == f"/#/experiments/{id}/runs?workflowType=machine_learning"
