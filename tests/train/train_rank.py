"""What every rank of the DDP tests runs: trains the run that its arguments name, and saves what came out."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

import torch
from torch import nn
from train_fakes import CLASSES, FEATURES, data, make_run

from bigopt.train import Fitter, Signals
from bigopt.train.ddp import broadcast_object, rank
from bigopt.vocabulary.errors import Interrupted
from bigopt.vocabulary.run import History, Run
from bigopt.vocabulary.settings import Optimizer


class Bypass(nn.Module):
    """A net with a parameter that no loss ever reaches."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.used = nn.Linear(FEATURES, CLASSES)
        self.unused = nn.Linear(2, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.used(x)


def train(folder: Path, **trainer: object) -> tuple[Run, History]:
    """Two epochs over 60 rows in batches of 16: the last batch is smaller."""
    run = make_run(
        folder,
        Bypass(),
        data(train=60),
        optimizer=Optimizer("sgd", lr=0.5),
        gradient_clip=0.5,
        **trainer,
    )
    return run, Fitter(folder)(run)


class StopAfter(Signals):
    """As if SIGTERM came to this rank during the ``n``-th optimizer step."""

    def __init__(self, n: int) -> None:
        self.left = n
        super().__init__()

    @property
    def received(self) -> int | None:  # type: ignore[override]
        self.left -= 1
        return signal.SIGTERM if self.left < 0 else None

    @received.setter
    def received(self, value: int | None) -> None:
        assert value is None


def interrupted(folder: Path) -> tuple[Run, Run]:
    """The same fit (dropout, batch norm, average) without and with an interruption that only rank 0 is told of."""
    settings = {"dataset": data(train=60), "ema": 0.9, "optimizer": Optimizer(lr=0.05)}
    whole = make_run(folder / "whole", **settings)
    Fitter(whole.folder)(whole)
    try:
        signals = StopAfter(5) if rank() == 0 else None
        Fitter(folder / "stopped", signals=signals)(make_run(folder / "stopped", **settings))
        raise AssertionError("not interrupted")
    except Interrupted:
        resumed = make_run(folder / "stopped", **settings)
        Fitter(resumed.folder)(resumed)
    return whole, resumed


def main(mode: str, folder: Path) -> None:
    if mode == "dies":
        print("the disk is on fire", file=sys.stderr)
        sys.exit(3)
    if mode == "dies late":
        broadcast_object(None)
        sys.exit(4)
    run, history = train(folder)
    torch.save({"weights": run.model.state_dict(), "epochs": history.epochs}, folder / f"rank{rank()}.pt")
    interrupted(folder)
    broadcast_object(None)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
