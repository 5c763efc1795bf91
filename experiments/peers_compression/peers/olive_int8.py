"""Olive's static quantization of the float file that by_hand.py trained.

Usage: olive_int8.py FOLDER FLOAT.onnx OUT.onnx SEED.
"""

import shutil
import sys
from pathlib import Path

import torch
from common import data
from olive import run
from olive.data.registry import Registry


@Registry.register_dataset()
def calibration(folder, seed, **_):
    x, y = data(Path(folder))
    torch.manual_seed(seed)
    rows = torch.randperm(len(x))[:512].tolist()
    return [({"input": x[row]}, y[row]) for row in rows]


folder, float_file, out, seed = sys.argv[1], sys.argv[2], Path(sys.argv[3]), int(sys.argv[4])
samples = {
    "name": "samples",
    "load_dataset_config": {"type": "calibration", "params": {"folder": folder, "seed": seed}},
    "dataloader_config": {"batch_size": 64},
}
quantization = {
    "type": "OnnxStaticQuantization",
    "data_config": "samples",
    "per_channel": True,
    "reduce_range": True,
    "activation_type": "uint8",
}
found = run(
    {
        "input_model": {"type": "OnnxModel", "model_path": float_file},
        "data_configs": [samples],
        "passes": {"quantization": quantization},
        "output_dir": str(out.with_suffix(".olive")),
        "cache_dir": str(out.with_suffix(".cache")),
    }
)
shutil.copy(found.get_best_candidate().model_path, out)
