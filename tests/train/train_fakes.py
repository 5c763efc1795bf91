"""A run built by hand: tiny tensors, tiny nets, a progress that remembers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bigopt.vocabulary.data import Data, Schema, TensorSplit
from bigopt.vocabulary.objective import Monitor
from bigopt.vocabulary.part import Part
from bigopt.vocabulary.run import Run, Silent
from bigopt.vocabulary.settings import Optimizer, Scheduler, Settings, Trainer
from bigopt.vocabulary.task import Task

CLASSES, FEATURES = 3, 5


@dataclass
class Memory:
    """A progress that remembers what it was told."""

    epochs: list[tuple[str, int, dict[str, float]]] = field(default_factory=list)
    steps: int = 0
    open: int = 0
    total: int = 0
    raise_at: tuple[int, BaseException] | None = None

    def start(self, name: str, total: int) -> None:
        self.open += 1
        self.total += total

    def advance(self, steps: int = 1, **values: float) -> None:
        self.steps += steps

    def stop(self) -> None:
        self.open -= 1

    def epoch(self, stage: str, epoch: int, values: Mapping[str, float]) -> None:
        self.epochs.append((stage, epoch, dict(values)))
        if self.raise_at is not None and self.raise_at[0] == epoch:
            raise self.raise_at[1]


def tensors(rows: int, seed: int, image: bool = False) -> TensorSplit:
    """Rows whose class follows from a fixed linear rule."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(rows, FEATURES, generator=generator)
    rule = torch.randn(FEATURES, CLASSES, generator=torch.Generator().manual_seed(99))
    y = (x @ rule).argmax(1)
    if image:
        x = torch.rand(rows, 1, 6, 6, generator=generator) + y.float().reshape(-1, 1, 1, 1) / CLASSES
    return TensorSplit(x, y)


def data(train: int = 64, val: int = 32, image: bool = False) -> Data:
    shape = (1, 6, 6) if image else (FEATURES,)
    schema = Schema("classification", "image" if image else "tabular", shape, CLASSES)
    return Data("fake", schema, tensors(train, 1, image), tensors(val, 2, image), None, fingerprint="f" * 64)


def linear(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(FEATURES, CLASSES))


def mlp(seed: int = 0, dropout: float = 0.2) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Linear(FEATURES, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(dropout), nn.Linear(8, CLASSES)
    )


def cnn(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, CLASSES)
    )


def make_run(
    folder: Path | str = ".",
    model: nn.Module | None = None,
    dataset: Data | None = None,
    parts: list[Part] | None = None,
    optimizer: Optimizer | None = None,
    scheduler: Scheduler | None = None,
    monitor: Monitor | None = None,
    seed: int = 0,
    **trainer: Any,
) -> Run:
    """A run on fakes; keyword arguments go to ``trainer``."""
    known: dict[str, Any] = {"max_epochs": 2, "batch_size": 16, "precision": "fp32", "compile": "off"}
    settings = Settings(
        trainer=replace(Trainer(), **(known | trainer)),
        optimizer=optimizer or Optimizer(),
        scheduler=scheduler or Scheduler(),
    )
    dataset = dataset or data()
    return Run(
        model=model if model is not None else mlp(),
        data=dataset,
        task=Task.of(dataset.schema, settings.trainer.label_smoothing),
        monitor=monitor or Monitor("val/accuracy", "max"),
        settings=settings,
        folder=Path(folder),
        seed=seed,
        build=None,  # type: ignore[arg-type]
        report=Silent(),
        progress=Memory(),
        parts=parts or [],
    )


def weights(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    """Bit for bit."""
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)
