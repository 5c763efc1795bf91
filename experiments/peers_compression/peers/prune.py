"""torch-pruning, then recovery. Usage: prune.py FOLDER START OUT.pt RATIO EPOCHS SEED."""

import sys
from pathlib import Path

import torch
import torch_pruning as tp
from common import data, load, train

folder, start, out = (Path(name) for name in sys.argv[1:4])
ratio, epochs, seed = float(sys.argv[4]), int(sys.argv[5]), int(sys.argv[6])
torch.manual_seed(seed)
x, y = data(folder)
model = load(start)

importance = tp.importance.GroupMagnitudeImportance(p=2)
tp.pruner.MetaPruner(model, x[:2], importance, pruning_ratio=ratio, ignored_layers=[model.net.head]).step()
train(model, x, y, epochs)
torch.save(model, out)
