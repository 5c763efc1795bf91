"""What every rank of the DDP tests runs: trains the run that its arguments name, and saves what came out."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from torch import nn
from train_fakes import CLASSES, FEATURES, data, make_run

from bigopt.train import Fitter
from bigopt.train.ddp import broadcast_object, rank
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


def main(mode: str, folder: Path) -> None:
    if mode == "dies":
        print("the disk is on fire", file=sys.stderr)
        sys.exit(3)
    if mode == "dies late":
        broadcast_object(None)
        sys.exit(4)
    run, history = train(folder)
    torch.save({"weights": run.model.state_dict(), "epochs": history.epochs}, folder / f"rank{rank()}.pt")
    broadcast_object(None)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
