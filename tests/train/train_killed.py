"""A training that is killed from outside; with a checkpoint after every step."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

from train_fakes import make_run

from bigopt.train import Fitter
from bigopt.vocabulary.part import Part
from bigopt.vocabulary.run import Run
from bigopt.vocabulary.settings import Optimizer


class Die(Part):
    """Ends the process without warning in the middle of a step; the number in the environment says in which."""

    def callbacks(self, run: Run) -> list[Any]:
        from pytorch_lightning.callbacks import Callback

        class Kill(Callback):
            def on_after_backward(self, trainer: Any, pl_module: Any) -> None:
                if trainer.global_step == int(os.environ.get("DIE_AT", "-1")):
                    os.kill(os.getpid(), signal.SIGKILL)

        return [Kill()]


def make(folder: Path) -> Run:
    """The same number of threads in every process: sums are split by it."""
    return make_run(
        folder,
        parts=[Die()],
        optimizer=Optimizer(lr=0.05),
        max_epochs=3,
        ema=0.9,
        checkpoint_seconds=0.0,
        threads=1,
    )


def main() -> None:
    Fitter(Path(sys.argv[1]))(make(Path(sys.argv[1])), name="killed")
