"""ONNX Runtime's static quantizer, after as many epochs in float as others train with rounding.

Usage: by_hand.py FOLDER START OUT.onnx EPOCHS SEED. Leaves the float file beside it as OUT.float.onnx.
"""

import sys
from pathlib import Path

import torch
from common import FINE, data, export, load, train
from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process


class Reader(CalibrationDataReader):
    """Batches of training samples, one after the other."""

    def __init__(self, x):
        self.batches = iter(x.split(64))

    def get_next(self):  # noqa: D102
        batch = next(self.batches, None)
        return None if batch is None else {"input": batch.numpy()}


folder, start, out = (Path(name) for name in sys.argv[1:4])
epochs, seed = int(sys.argv[4]), int(sys.argv[5])
torch.manual_seed(seed)
x, y = data(folder)
model = load(start)

train(model, x, y, epochs, FINE)
export(model, out.with_suffix(".float.onnx"), x[:2])
quant_pre_process(out.with_suffix(".float.onnx"), out.with_suffix(".prepared.onnx"))
samples = x[torch.randperm(len(x))[:512]]
options = {"per_channel": True, "reduce_range": True, "activation_type": QuantType.QUInt8}  # signed ones do not fuse
quantize_static(out.with_suffix(".prepared.onnx"), out, Reader(samples), **options)
