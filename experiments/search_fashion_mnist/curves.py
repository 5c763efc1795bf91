"""Learning curves of every configuration of a grid, trained once and kept, one line of JSON a configuration."""

from __future__ import annotations

import itertools
import json
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from bigopt import registry
from bigopt.vocabulary.data import Data

HERE = Path(__file__).parent
EPOCHS = {"digits": 27, "fashion_mnist": 9}
GRIDS: dict[str, dict[str, list[Any]]] = {
    "digits": {
        "lr": [1e-4, 2.5e-4, 6.3e-4, 1.6e-3, 4e-3, 1e-2, 2.5e-2, 6.3e-2, 1.6e-1],
        "weight_decay": [0.0, 0.01, 0.1],
        "width": [4, 8, 16],
        "batch_size": [32, 128],
        "augment": ["none", "shift"],
    },
    "fashion_mnist": {
        "lr": [1e-4, 3.2e-4, 1e-3, 3.2e-3, 1e-2, 3.2e-2, 1e-1],
        "weight_decay": [0.0, 0.1],
        "width": [4, 12],
        "batch_size": [64, 256],
        "augment": ["none", "shift_flip"],
    },
}
DATA: dict[str, dict[str, Any]] = {
    "digits": {"val": 0.4, "test": 0.1},
    "fashion_mnist": {"limit": 10_000, "val": 0.05},
}


def configurations(dataset: str) -> list[dict[str, Any]]:
    """All points of a grid, shuffled once, so that a part of the table is a fair one."""
    grid = GRIDS[dataset]
    points = [dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())]
    order = torch.randperm(len(points), generator=torch.Generator().manual_seed(0)).tolist()
    return [points[place] for place in order]


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
    size = data.schema.shape[1]
    model = small_cnn(int(config["width"]), data.schema.num_classes, deep=size > 16)
    everything = torch.arange(max(len(data.train), len(data.val)))
    mean, std = data.mean.reshape(-1, 1, 1), data.std.reshape(-1, 1, 1)  # type: ignore[union-attr]
    x = (data.train.take(everything[: len(data.train)]) - mean) / std
    held = (data.val.take(everything[: len(data.val)]) - mean) / std
    batch = int(config["batch_size"])
    steps = len(x) // batch
    optimizer = torch.optim.AdamW(model.parameters(), lr=config["lr"], weight_decay=config["weight_decay"])
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps * epochs)
    found: dict[str, list[float]] = {"accuracy": [], "loss": [], "seconds": []}
    for _ in range(epochs):
        start = time.process_time()
        model.train()
        order = torch.randperm(len(x), generator=generator)
        for step in range(steps):
            rows = order[step * batch : (step + 1) * batch]
            inputs = x[rows] if config["augment"] == "none" else shifted(x[rows], config["augment"], generator)
            optimizer.zero_grad()
            functional.cross_entropy(model(inputs), data.train.y[rows]).backward()
            optimizer.step()
            scheduler.step()
        model.eval()
        with torch.no_grad():
            logits = model(held)
        found["accuracy"].append(round((logits.argmax(1) == data.val.y).float().mean().item(), 5))
        found["loss"].append(round(functional.cross_entropy(logits, data.val.y).item(), 5))
        found["seconds"].append(round(time.process_time() - start, 4))
    return found


def small_cnn(width: int, classes: int, deep: bool) -> nn.Module:
    """Two or three convolutions of stride 2 with batch norm, and a linear head on the averaged maps."""
    layers: list[nn.Module] = []
    channels = 1
    for place in range(3 if deep else 2):
        layers += [
            nn.Conv2d(channels, width * 2**place, 3, 2, 1, bias=False),
            nn.BatchNorm2d(width * 2**place),
            nn.ReLU(),
        ]
        channels = width * 2**place
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, classes))


def shifted(x: Tensor, name: str, generator: torch.Generator) -> Tensor:
    """Images ``(N, C, H, W)``, each moved by up to a pixel (two above 16 pixels) and, where asked, mirrored by half."""
    count, _, height, width = x.shape
    most = 1 if height <= 16 else 2
    moves = torch.randint(0, 2 * most + 1, (2, count, 1), generator=generator)
    rows = moves[0] + torch.arange(height)
    columns = moves[1] + torch.arange(width)
    if name.endswith("flip"):
        mirror = torch.rand(count, 1, generator=generator) < 0.5
        columns = torch.where(mirror, columns.flip(1), columns)
    padded = functional.pad(x, (most, most, most, most), value=float(x.min()))
    return padded[torch.arange(count)[:, None, None], :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)
