"""A tracking store made once (a fresh one costs seconds), and models small enough to log in no time."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy
import pytest

from bigopt.store import redaction
from bigopt.tracking import make_tracker
from bigopt.vocabulary.settings import Tracking


@pytest.fixture(scope="session")
def fresh_store(tmp_path_factory) -> Path:
    """The file of an empty store."""
    from bigopt.tracking.target import resolve

    folder = tmp_path_factory.mktemp("store")
    resolve(None, folder).client()
    return folder / "mlflow.db"


@pytest.fixture
def project(tmp_path, fresh_store, monkeypatch) -> Path:
    """A working directory with an empty store; nothing registered as secret."""
    monkeypatch.setattr(redaction, "_secrets", set())
    for name in [name for name in os.environ if name.startswith("MLFLOW_TRACKING_")]:
        monkeypatch.delenv(name)
    folder = tmp_path / "project"
    folder.mkdir()
    shutil.copy(fresh_store, folder / "mlflow.db")
    return folder


@pytest.fixture
def client(project):
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=f"sqlite:///{project}/mlflow.db")


@pytest.fixture
def started(project) -> Callable[..., Any]:
    """Makes a tracker in a run's folder and starts it."""

    def start(name: str = "run", uri: str | None = None, parent: str | None = None, params: Any = (), **settings: Any):
        folder = project / "runs" / name
        folder.mkdir(parents=True, exist_ok=True)
        tracker = make_tracker(Tracking(uri=uri, **settings), folder, project)
        tracker.start(name, dict(params), {"overrides": "seed=1"}, parent)
        return tracker

    return start


@pytest.fixture
def onnx_file(tmp_path) -> Path:
    """``relu(x @ w)`` for ``(N, 3)`` inputs."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    weight = numpy.random.default_rng(0).normal(size=(3, 2)).astype(numpy.float32)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["h"]), helper.make_node("Relu", ["h"], ["y"])],
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 2])],
        [numpy_helper.from_array(weight, "w")],
    )
    path = tmp_path / "model.onnx"
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(model, str(path))
    return path
