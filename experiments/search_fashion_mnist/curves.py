"""Learning curves of every configuration of a grid, trained once and kept, one line of JSON a configuration."""

from __future__ import annotations

import itertools
import json
import math
import time
from typing import Any

import torch
from grids import DATA, EPOCHS, configurations, load, path
from torch import Tensor, nn
from torch.nn import functional

from bigopt import registry
from bigopt.vocabulary.data import Data, Split


def record(dataset: str, part: int = 0, parts: int = 1) -> None:
    """Trains what is missing; a start that was killed goes on with the next configuration.

    Args:
        dataset: ``digits`` or ``fashion_mnist``.
        part: which of the processes this one is.
        parts: how many share the work.
    """
    torch.set_num_threads(1)
    known = {json.dumps(line["config"], sort_keys=True) for line in load(dataset)}
    data: Data = registry.build("datasets", dataset, DATA[dataset], {"seed": 0})
    missing = [config for config in configurations(dataset) if json.dumps(config, sort_keys=True) not in known]
    if dataset == "digits":
        for _, group in itertools.groupby(sorted(missing, key=alike), alike):
            write(dataset, configs := list(group), together(data, configs))
        return
    for config in missing[part::parts]:
        write(dataset, [config], [train(data, config, EPOCHS[dataset])])


def write(dataset: str, configs: list[dict[str, Any]], found: list[dict[str, list[float]]]) -> None:
    """Appends finished curves."""
    lines = [json.dumps({"config": config} | curve) for config, curve in zip(configs, found, strict=True)]
    with path(dataset).open("a") as file:
        file.write("".join(line + "\n" for line in lines))


def alike(config: dict[str, Any]) -> tuple[Any, ...]:
    """What models that are trained at once have in common."""
    return config["width"], config["batch_size"], config["augment"]


def together(data: Data, configs: list[dict[str, Any]]) -> list[dict[str, list[float]]]:
    """Perceptrons on digits, trained at once."""
    from stacked import train_together

    x, held = inputs(data.train), inputs(data.val)
    name = configs[0]["augment"]
    augment = None if name == "none" else lambda images, generator: shifted(images, name, generator)
    return train_together(x, data.train.y, held, data.val.y, configs, EPOCHS["digits"], augment)


def train(data: Data, config: dict[str, Any], epochs: int) -> dict[str, list[float]]:
    """One training with AdamW and a cosine; validation accuracy and loss, and processor seconds, of every epoch."""
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
