"""The main job leaves what the contract says, and the files are the model."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
import torch

from bigopt.pipeline.build import Builder
from bigopt.pipeline.structure import load_structure


def test_report_has_the_contracts_form(finished):
    report = finished.report
    assert (report["schema"], report["status"], report["seed"]) == (1, "finished", 0)
    assert report["objective"] == {"val/accuracy": "max"}
    assert [stage["name"] for stage in report["stages"]] == ["baseline", "control", "channel_pruning", "quantization"]
    baseline, control, pruned, final = report["stages"]
    keys = (
        "plugin metrics drop drop_interval recovery_epochs parameters nonzero macs bops bytes bytes_zip latency_ms "
        "size_ratio speedup seconds"
    )
    for stage in report["stages"]:
        assert set(keys.split()) <= set(stage)
        assert {"val/accuracy", "val/loss"} <= set(stage["metrics"])
        low, high = stage["drop_interval"]
        assert low <= stage["drop"] <= high
    assert (baseline["plugin"], pruned["plugin"], final["plugin"]) == (None, "channel_pruning", "quantization")
    assert (baseline["drop"], baseline["size_ratio"]) == (0.0, 1.0)
    assert control["recovery_epochs"] == pruned["recovery_epochs"] == 2
    assert pruned["drop"] == pytest.approx(baseline["metrics"]["val/accuracy"] - pruned["metrics"]["val/accuracy"])
    assert report["test"]["test_reads"] == 1
    assert {"baseline", "control", "final", "drop_interval"} <= set(report["test"])
    assert report["budget"]["met"] is None
    assert report["n_val"] == 360


def test_the_model_is_really_smaller_and_cheaper(finished):
    baseline, _, pruned, final = finished.report["stages"]
    assert pruned["parameters"] < 0.35 * baseline["parameters"]
    assert pruned["macs"] < 0.4 * baseline["macs"]
    assert pruned["bytes"] < 0.35 * baseline["bytes"]
    assert final["bytes"] < 0.4 * pruned["bytes"]
    assert final["bops"] < pruned["bops"] / 10
    assert final["bytes"] == (finished.folder / "model.onnx").stat().st_size


def test_bytes_hold_no_exporter_metadata(finished):
    raw = (finished.folder / "stages" / "baseline" / "model.onnx").read_bytes()
    assert b"/bigopt/" not in raw and b"site-packages" not in raw
    parameters = finished.report["stages"][0]["parameters"]
    assert len(raw) < 4 * parameters + 20_000


def test_the_onnx_file_gives_the_reported_accuracy(finished):
    data = Builder(0).dataset("digits")
    session = ort.InferenceSession(finished.folder / "model.onnx", providers=["CPUExecutionProvider"])
    x = data.val.take(torch.arange(len(data.val))).numpy()
    logits = session.run(None, {session.get_inputs()[0].name: x})[0]
    accuracy = (logits.argmax(1) == data.val.y.numpy()).mean()
    assert accuracy == pytest.approx(finished.report["stages"][-1]["metrics"]["val/accuracy"])
    one = session.run(None, {session.get_inputs()[0].name: x[:1]})[0]
    np.testing.assert_allclose(one, logits[:1], atol=1e-4)


def test_the_pt2_file_runs_with_torch_alone(finished):
    program = """
import sys, torch
model = torch.export.load("model.pt2").module()
torch.save(model(torch.load("x.pt")), "y.pt")
assert not [name for name in sys.modules if name.split(".")[0] in ("bigopt", "torchao", "bigopt_plugins")]
"""
    x = Builder(0).dataset("digits").val.take(torch.arange(5))
    torch.save(x, finished.folder / "x.pt")
    subprocess.run([sys.executable, "-c", program], cwd=finished.folder, check=True)
    logits = torch.load(finished.folder / "y.pt", weights_only=True)
    session = ort.InferenceSession(finished.folder / "model.onnx", providers=["CPUExecutionProvider"])
    expected = session.run(None, {session.get_inputs()[0].name: x.numpy()})[0]
    assert (logits.argmax(1).numpy() == expected.argmax(1)).all()


def test_the_structure_rebuilds_the_pruned_model(finished):
    builder = Builder(0)
    data = builder.dataset("digits")
    model = load_structure(finished.folder, lambda spec: builder.model({**spec, "weights": None}, data)).eval()
    session = ort.InferenceSession(
        finished.folder / "stages" / "channel_pruning" / "model.onnx", providers=["CPUExecutionProvider"]
    )
    x = data.val.take(torch.arange(64))
    with torch.no_grad():
        logits = model(x)
    expected = session.run(None, {session.get_inputs()[0].name: x.numpy()})[0]
    np.testing.assert_allclose(logits.numpy(), expected, atol=1e-4)


def test_the_screen_ends_with_table_files_and_the_way_to_mlflow(finished):
    screen = finished.done.stdout
    for text in ("baseline", "(control)", "channel_pruning", "quantization", "bigopt ui", "report.html"):
        assert text in screen
    assert "Traceback" not in finished.done.stderr and "Failed to load" not in finished.done.stderr


def test_mlflow_has_the_run(finished):
    import mlflow

    client = mlflow.MlflowClient(f"sqlite:///{finished.where / 'mlflow.db'}")
    (run,) = client.search_runs([experiment.experiment_id for experiment in client.search_experiments()])
    assert run.info.status == "FINISHED"
    final = finished.report["stages"][-1]
    assert run.data.metrics["stage/quantization/val/accuracy"] == pytest.approx(final["metrics"]["val/accuracy"])
    assert run.data.metrics["stage/quantization/bytes"] == final["bytes"]
    assert run.data.params["model.name"] == "lenet5"
    assert len(client.get_metric_history(run.info.run_id, "baseline/val/accuracy")) == 2
    names = {file.path for file in client.list_artifacts(run.info.run_id)}
    assert {"report.json", "report.csv", "report.html", "model.onnx", "model.pt2"} <= names


def test_the_logged_model_answers_through_pyfunc(finished, monkeypatch):
    import mlflow

    monkeypatch.chdir(finished.where)
    mlflow.set_tracking_uri(f"sqlite:///{finished.where / 'mlflow.db'}")
    client = mlflow.MlflowClient()
    (run,) = client.search_runs([experiment.experiment_id for experiment in client.search_experiments()])
    model = mlflow.pyfunc.load_model(f"runs:/{run.info.run_id}/model")
    x = Builder(0).dataset("digits").val.take(torch.arange(4)).numpy()
    answer = model.predict(x)
    logits = np.asarray(next(iter(answer.values())) if isinstance(answer, dict) else answer)
    session = ort.InferenceSession(finished.folder / "model.onnx", providers=["CPUExecutionProvider"])
    expected = session.run(None, {session.get_inputs()[0].name: x})[0]
    np.testing.assert_allclose(logits, expected, atol=1e-4)


def test_the_page_is_self_contained(finished):
    page = (finished.folder / "report.html").read_text()
    assert "quantization" in page
    for outside in ('src="http', 'href="http', "@import", "url(http"):
        assert outside not in page


def test_the_saved_configuration_is_complete(finished):
    import yaml

    saved = yaml.safe_load((finished.folder / "config.yaml").read_text())
    assert saved["compression"]["channel_pruning"]["criterion"] == "l2"
    assert saved["trainer"]["batch_size"] == 64
    assert json.dumps(saved)
    assert Path(finished.folder / ".hydra" / "overrides.yaml").exists()
