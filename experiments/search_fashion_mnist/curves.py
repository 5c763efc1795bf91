"""Learning curves of every configuration of a grid, trained once and kept, one line of JSON a configuration."""

from __future__ import annotations

import itertools
import json
import math
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from bigopt import registry
from bigopt.vocabulary.data import Data, Split

HERE = Path(__file__).parent
EPOCHS = {"digits": 27, "fashion_mnist": 9}
GRIDS: dict[str, dict[str, list[Any]]] = {
    "digits": {
        "lr": [2e-4, 6.3e-4, 2e-3, 6.3e-3, 2e-2, 6.3e-2, 2e-1],
        "weight_decay": [0.01, 0.3],
        "width": [4, 16],
        "batch_size": [64, 256],
        "augment": ["none", "shift"],
    },
    "fashion_mnist": {
        "lr": [1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 3e-1],
        "weight_decay": [0.01, 0.3],
        "width": [4, 10],
        "batch_size": [128, 512],
        "augment": ["none", "shift_flip"],
    },
}
DATA: dict[str, dict[str, Any]] = {
    "digits": {"val": 0.4, "test": 0.1},
    "fashion_mnist": {"limit": 10_000, "val": 0.05},
}


def configurations(dataset: str) -> list[dict[str, Any]]:
    """All points of a grid, one weight decay after the other, so that a part of it is a smaller grid."""
    grid = GRIDS[dataset]
    points = [dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())]
    return sorted(points, key=lambda point: grid["weight_decay"].index(point["weight_decay"]))


def path(dataset: str) -> Path:
    """Where a table is kept."""
    return HERE / f"{dataset}.jsonl"


def load(dataset: str) -> list[dict[str, Any]]:
    """The recorded lines; a torn last one is left out."""
    lines = path(dataset).read_text().splitlines() if path(dataset).is_file() else []
    found = []
    for line in lines:
        try:
            found.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return found


def record(dataset: str, part: int = 0, parts: int = 1) -> None:
    """Trains what is missing; a start that was killed goes on with the next configuration.

    Args:
        dataset: ``digits`` or ``fashion_mnist``.
        part: which of the processes this one is.
        parts: how many share the work.
    """
    known = {json.dumps(line["config"], sort_keys=True) for line in load(dataset)}
    data: Data = registry.build("datasets", dataset, DATA[dataset], {"seed": 0})
    for config in configurations(dataset)[part::parts]:
        if json.dumps(config, sort_keys=True) in known:
            continue
        line = json.dumps({"config": config} | train(data, config, EPOCHS[dataset]))
        with path(dataset).open("a") as file:
            file.write(line + "\n")


def train(data: Data, config: dict[str, Any], epochs: int) -> dict[str, list[float]]:
    """One training with AdamW and a cosine; validation accuracy and loss, and processor seconds, of every epoch."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    model = small_cnn(int(config["width"]), data.schema.num_classes)
    x, held = inputs(data.train), inputs(data.val)
    mean, std = x.mean(), x.std()
    x, held = (x - mean) / std, (held - mean) / std
    batch = int(config["batch_size"])
    steps = len(x) // batch
    decay = config["weight_decay"]
    optimizer = torch.optim.AdamW(model.parameters(), lr=config["lr"], weight_decay=decay, fused=True)
    found: dict[str, list[float]] = {"accuracy": [], "loss": [], "seconds": []}
    for epoch in range(epochs):
        start = time.process_time()
        model.train()
        order = torch.randperm(len(x), generator=generator)
        for step in range(steps):
            rows = order[step * batch : (step + 1) * batch]
            images = x[rows] if config["augment"] == "none" else shifted(x[rows], config["augment"], generator)
            done = (epoch * steps + step) / (steps * epochs)
            optimizer.param_groups[0]["lr"] = config["lr"] * (1 + math.cos(math.pi * done)) / 2
            optimizer.zero_grad()
            functional.cross_entropy(model(images), data.train.y[rows]).backward()
            optimizer.step()
        model.eval()
        with torch.no_grad():
            logits = model(held)
        found["accuracy"].append(round((logits.argmax(1) == data.val.y).float().mean().item(), 5))
        found["loss"].append(round(functional.cross_entropy(logits, data.val.y).item(), 5))
        found["seconds"].append(round(time.process_time() - start, 4))
    return found


def inputs(split: Split) -> Tensor:
    """Images ``(N, 1, H, W)`` of a split; those above 16 pixels are averaged to half their size, which saves time."""
    x = split.take(torch.arange(len(split)))
    return functional.avg_pool2d(x, 2) if x.shape[-1] > 16 else x


def small_cnn(width: int, classes: int) -> nn.Module:
    """Two convolutions of stride 2 with batch norm, and a linear head on the averaged maps."""
    return nn.Sequential(
        nn.Conv2d(1, width, 3, 2, 1, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        nn.Conv2d(width, 2 * width, 3, 2, 1, bias=False),
        nn.BatchNorm2d(2 * width),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(2 * width, classes),
    )


def shifted(x: Tensor, name: str, generator: torch.Generator) -> Tensor:
    """Images ``(N, C, H, W)``, each moved by up to a pixel and, where asked, half of them mirrored."""
    count, _, height, width = x.shape
    most = 1
    moves = torch.randint(0, 2 * most + 1, (2, count, 1), generator=generator)
    rows = moves[0] + torch.arange(height)
    columns = moves[1] + torch.arange(width)
    if name.endswith("flip"):
        mirror = torch.rand(count, 1, generator=generator) < 0.5
        columns = torch.where(mirror, columns.flip(1), columns)
    padded = functional.pad(x, (most, most, most, most), value=float(x.min()))
    return padded[torch.arange(count)[:, None, None], :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)
