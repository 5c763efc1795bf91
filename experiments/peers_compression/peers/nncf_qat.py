"""NNCF's quantization-aware training. Usage: nncf_qat.py FOLDER START OUT.onnx EPOCHS SEED."""

import sys
from pathlib import Path

import nncf
import torch
from common import FINE, data, export, load, train

folder, start, out = (Path(name) for name in sys.argv[1:4])
epochs, seed = int(sys.argv[4]), int(sys.argv[5])
torch.manual_seed(seed)
x, y = data(folder)
model = load(start)

samples = nncf.Dataset(list(x[torch.randperm(len(x))[:512]].split(64)))
model = nncf.quantize(model, samples)
train(model, x, y, epochs, FINE)
export(nncf.strip(model, example_input=x[:2]), out, x[:2])
