"""What a model costs: files, sizes, counts, latency, and what it still gets right."""

from bigopt.measure.count import count
from bigopt.measure.counts import Bits, Counts, Layer
from bigopt.measure.export import export_onnx, export_pt2
from bigopt.measure.latency import Rounds, latency, latency_rounds, time_rounds
from bigopt.measure.session import Session, predict_onnx

__all__ = [
    "Bits",
    "Counts",
    "Layer",
    "Rounds",
    "Session",
    "count",
    "export_onnx",
    "export_pt2",
    "latency",
    "latency_rounds",
    "predict_onnx",
    "time_rounds",
]
