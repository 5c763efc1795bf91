"""What a model costs: files, sizes, counts, latency, and what it still gets right."""

from bigopt.measure._agreement import agreement, sizes
from bigopt.measure._count import count
from bigopt.measure._count_onnx import count_onnx
from bigopt.measure._latency import Rounds, latency, latency_rounds, time_rounds
from bigopt.measure._robustness import epochs_to_target, robustness, robustness_metrics
from bigopt.measure.calibration import class_accuracies, expected_calibration_error
from bigopt.measure.counts import Bits, Counts, Layer
from bigopt.measure.export import export_onnx, export_pt2
from bigopt.measure.session import Session, predict_onnx
from bigopt.measure.stage import measure_stage, predict_model
from bigopt.measure.stage_measure import StageMeasure

__all__ = [
    "Bits",
    "Counts",
    "Layer",
    "Rounds",
    "Session",
    "StageMeasure",
    "agreement",
    "class_accuracies",
    "count",
    "count_onnx",
    "epochs_to_target",
    "expected_calibration_error",
    "export_onnx",
    "export_pt2",
    "latency",
    "latency_rounds",
    "measure_stage",
    "predict_model",
    "predict_onnx",
    "robustness",
    "robustness_metrics",
    "sizes",
    "time_rounds",
]
