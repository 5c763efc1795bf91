"""ONNX files out of the tracking store: by run, by path, by registered name; other flavours are refused."""

import pytest
import yaml
from mlflow import MlflowClient

from bigopt.tracking.fetch import fetch_onnx
from bigopt.vocabulary.errors import RequestError


@pytest.fixture
def stored(project, client, tmp_path):
    """A run with its file, and a folder of each flavour; the ONNX one is registered."""
    experiment = client.create_experiment("onnx", artifact_location=(project / "mlruns" / "onnx").as_uri())
    run = client.create_run(experiment).info.run_id
    file = tmp_path / "model.onnx"
    file.write_bytes(b"the run's")
    client.log_artifact(run, str(file))
    for name, flavours in (("net", {"onnx": {"data": "graph.onnx"}}), ("code", {"python_function": {"loader": "x"}})):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "MLmodel").write_text(yaml.safe_dump({"flavors": flavours}))
        (folder / "graph.onnx").write_bytes(b"the model's")
        client.log_artifacts(run, str(folder), name)
    store = f"sqlite:///{project}/mlflow.db"
    registry = MlflowClient(store, registry_uri=store)  # the default follows what other tests did to MLflow's globals
    registry.create_registered_model("net")
    registry.create_model_version("net", client.get_run(run).info.artifact_uri + "/net", run_id=run)
    registry.set_registered_model_alias("net", "best", "1")
    return run, store


def test_every_form_gives_the_onnx_file_and_other_flavours_are_refused(stored, tmp_path):
    run, store = stored
    for number, (uri, content) in enumerate(
        {
            f"runs:/{run}": b"the run's",
            f"runs:/{run}/model.onnx": b"the run's",
            f"runs:/{run}/net": b"the model's",
            "models:/net/1": b"the model's",
            "models:/net@best": b"the model's",
        }.items()
    ):
        into = tmp_path / str(number)
        into.mkdir()
        assert fetch_onnx(uri, into, store).read_bytes() == content
    for uri, problem in {
        f"runs:/{run}/code": "has the flavours python_function; only an ONNX flavour is loaded",
        f"runs:/{run}/nothing": "not to be had from",
        "models:/net/7": "not to be had from",
        "models:/net": "expected runs:/<run id>",
    }.items():
        with pytest.raises(RequestError, match=problem):
            fetch_onnx(uri, tmp_path, store)
    with pytest.raises(RequestError, match="there is no tracking store"):
        fetch_onnx(f"runs:/{run}", tmp_path, f"sqlite:///{tmp_path}/none.db")
