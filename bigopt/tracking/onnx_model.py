"""The exported model as an MLflow model that runs in ONNX Runtime, wherever it is loaded."""

from __future__ import annotations

import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bigopt.tracking.runs import Unusable

if TYPE_CHECKING:
    from mlflow import MlflowClient

NAME = "model"
EXAMPLE = "tracking.npy"
PROVIDERS = ["CPUExecutionProvider"]


def log_model(client: MlflowClient, run_id: str, experiment_id: str, folder: Path, record: dict[str, Any]) -> None:
    """Logs the ONNX file as the run's model, unless it is there already; a file that is gone is passed over."""
    file, example = folder / record["path"], folder / record["example"]
    if not (file.is_file() and example.is_file()):
        return
    known = client.search_logged_models([experiment_id], f"source_run_id = '{run_id}' AND name = '{NAME}'")
    if any(str(model.status) in ("READY", "LoggedModelStatus.READY") for model in known):
        return
    model = known[0] if known else client.create_logged_model(experiment_id, name=NAME, source_run_id=run_id)
    with tempfile.TemporaryDirectory() as temporary:
        saved = Path(temporary) / NAME
        try:
            save_model(file, example, saved, run_id=run_id, model_id=model.model_id, location=model.artifact_location)
        except OSError:
            raise  # a full disk passes
        except Exception as error:
            raise Unusable(f"{file}: {error}") from error
        client.log_model_artifacts(model.model_id, str(saved))
    client.finalize_logged_model(model.model_id, "READY")
    from mlflow.entities import LoggedModelOutput

    client.log_outputs(run_id, [LoggedModelOutput(model.model_id, 0)])


def save_model(file: Path, example: Path, target: Path, run_id: str, model_id: str, location: str) -> None:
    """Writes the MLflow model folder: the ONNX file, signature, input example and requirements."""
    import mlflow.onnx
    import numpy
    import onnx
    from mlflow.models import Model, infer_signature

    inputs = numpy.load(example, allow_pickle=False)
    mlflow.onnx.save_model(
        onnx.load(file),
        str(target),
        mlflow_model=Model(run_id=run_id, model_id=model_id, artifact_path=location),
        signature=infer_signature(inputs, outputs(file, inputs)),
        input_example=inputs,
        pip_requirements=[f"{package}=={version(package)}" for package in ("onnxruntime", "onnx", "numpy")],
        onnx_execution_providers=PROVIDERS,
        save_as_external_data=False,
    )


def outputs(file: Path, inputs: Any) -> Any:
    """What the file gives for these inputs."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(file), options, providers=PROVIDERS)
    return session.run(None, {session.get_inputs()[0].name: inputs})[0]
