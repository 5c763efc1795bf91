"""Runs an ONNX file as it would be deployed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from bigopt.vocabulary.data import Split
from bigopt.vocabulary.errors import RequestError, RunFailed


class Session:
    """A file loaded into ONNX Runtime on the CPU. Libraries of custom operators are never loaded.

    Args:
        path: the ONNX file, or its content.
        threads: of one operator; operators run one after the other.
        optimize: fuse operators, as ONNX Runtime does unless told otherwise.

    Raises:
        RunFailed: ONNX Runtime cannot load the file.
    """

    def __init__(self, path: Path | bytes, threads: int = 1, *, optimize: bool = True) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
        options.log_severity_level = 3
        if not optimize:
            options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        # Idle threads of one session must not spin while another one is timed.
        options.add_session_config_entry("session.force_spinning_stop", "1")
        source = path if isinstance(path, bytes) else str(path)
        try:
            self.onnx = onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
        except Exception as error:
            named = "the model" if isinstance(path, bytes) else str(path)
            raise RunFailed(f"{named}: ONNX Runtime cannot load it: {str(error).splitlines()[0][:300]}") from error
        self.input = self.onnx.get_inputs()[0].name
        self.shape = tuple(self.onnx.get_inputs()[0].shape[1:])

    def run(self, x: Tensor) -> Tensor:
        """Logits ``(N, K)`` or predictions ``(N, T)`` of inputs ``(N, …)``, float32 on the CPU."""
        return torch.from_numpy(self.run_array(self.array(x))).float()

    def run_array(self, x: np.ndarray) -> np.ndarray:
        """The same on arrays, with nothing around ONNX Runtime's own call."""
        logits: np.ndarray = self.onnx.run(None, {self.input: x})[0]
        return logits

    @staticmethod
    def array(x: Tensor) -> np.ndarray:
        """The inputs as ONNX Runtime takes them: contiguous, on the CPU."""
        return np.ascontiguousarray(x.detach().cpu().numpy())


def predict_onnx(path: Path, split: Split, batch_size: int = 1024, *, threads: int | None = None) -> Tensor:
    """What an ONNX file answers for every sample of a split.

    Args:
        path: the file.
        split: what to predict, in its order; labels are not read.
        batch_size: rows of one call.
        threads: of ONNX Runtime; None takes as many as torch has.

    Returns:
        logits ``(N, K)`` or predictions ``(N, T)``, float32 on the CPU.

    Raises:
        RequestError: the split is empty.
        RunFailed: ONNX Runtime cannot load the file.
    """
    if len(split) == 0:
        raise RequestError("the split to predict is empty")
    session = Session(path, threads if threads is not None else torch.get_num_threads())
    return torch.cat([session.run(split.take(index)) for index in torch.arange(len(split)).split(batch_size)])
