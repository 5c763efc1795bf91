"""What a user of any tool but bigopt writes anyway: the net, the data, the training loop, the export.

The net is the architecture of ``model=resnet`` under the same names, so that bigopt's weights load into it.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch import nn
from torch.nn.functional import cross_entropy

BATCH, LR, FINE, DECAY = 128, 3e-3, 1e-3, 0.01


class Normalize(nn.Module):
    """Input normalisation; its constants come with the weights."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(1, 1, 1))
        self.register_buffer("scale", torch.ones(1, 1, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:  # noqa: D102
        return (x - self.mean) * self.scale


def conv_bn(inputs: int, outputs: int, kernel: int = 3, stride: int = 1, relu: bool = True) -> nn.Sequential:
    layers = nn.Sequential()
    layers.add_module("conv", nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False))
    layers.add_module("bn", nn.BatchNorm2d(outputs))
    if relu:
        layers.add_module("act", nn.ReLU())
    return layers


class Block(nn.Module):
    """Two convolutions and a shortcut."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(conv_bn(inputs, outputs, 3, stride), conv_bn(outputs, outputs, relu=False))
        same = inputs == outputs
        self.shortcut = nn.Identity() if same else conv_bn(inputs, outputs, 1, stride, relu=False)
        self.relu = nn.ReLU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:  # noqa: D102
        return self.relu(self.body(x) + self.shortcut(x))


class Net(nn.Module):
    """A residual net of three stages with one block each."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.stem = conv_bn(1, width)
        widths = [width, width, 2 * width, 4 * width]
        self.stages = nn.Sequential(*(nn.Sequential(Block(widths[i], widths[i + 1], 1 + (i > 0))) for i in range(3)))
        self.head = nn.Linear(4 * width, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:  # noqa: D102
        return self.head(self.stages(self.stem(x)).mean((2, 3)))


class Model(nn.Module):
    """Logits of raw images in [0, 1]."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.normalize = Normalize()
        self.net = Net(width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:  # noqa: D102
        return self.net(self.normalize(x))


def load(path: Path) -> nn.Module:
    """The trained model in a run's folder, or a pruned one that ``prune.py`` wrote."""
    if path.suffix == ".pt":
        return torch.load(path, weights_only=False).eval()
    state = load_file(path / "model.safetensors")
    model = Model(len(state["net.stem.conv.weight"]))
    model.load_state_dict(state)
    return model.eval()


def data(folder: Path) -> tuple[torch.Tensor, torch.Tensor]:
    """Training images ``(N, 1, 28, 28)`` in [0, 1] and labels ``(N,)``."""
    arrays = np.load(folder / "train.npz")
    return torch.from_numpy(arrays["x"]).float() / 255, torch.from_numpy(arrays["y"])


def train(model: nn.Module, x: torch.Tensor, y: torch.Tensor, epochs: int, lr: float = LR) -> nn.Module:
    """AdamW down half a cosine; the model after the last epoch, in evaluation mode."""
    weights = [p for p in model.parameters() if p.requires_grad and p.ndim > 1]
    others = [p for p in model.parameters() if p.requires_grad and p.ndim <= 1]
    groups = [{"params": weights, "weight_decay": DECAY}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs * -(-len(x) // BATCH))
    for _ in range(epochs):
        model.train()
        for rows in torch.randperm(len(x)).split(BATCH):
            optimizer.zero_grad()
            cross_entropy(model(x[rows]), y[rows]).backward()
            optimizer.step()
            schedule.step()
    return model.eval()


def export(model: nn.Module, path: Path, example: torch.Tensor) -> None:
    """One ONNX file with input ``input`` of any batch size."""
    axes = {"input": {0: "n"}, "logits": {0: "n"}}
    names = {"input_names": ["input"], "output_names": ["logits"], "dynamic_axes": axes}
    torch.onnx.export(model, (example,), path, dynamo=False, opset_version=17, **names)
