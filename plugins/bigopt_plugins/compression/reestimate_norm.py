"""Running statistics of batch norms, computed anew after compression."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from bigopt.data.batches import batches
from bigopt.train.statistics import average_statistics
from bigopt.vocabulary.errors import RequestError
from bigopt.vocabulary.part import Fit, Part
from bigopt.vocabulary.run import Run


class ReestimateNorm(Part):
    """Gives batch norms the statistics that the compressed model's activations have, without any training.

    After channels are removed or weights rounded, the running means and variances are those of another net; computing
    them anew on training samples repairs most of the damage where no recovery follows (EagleEye, Li et al. 2020,
    arXiv:2007.02491). The averages are plain ones over all batches. No labels are read.

    Args:
        samples: of the training split that are passed, at most.

    Raises:
        RequestError: fewer than two samples.
    """

    def __init__(self, samples: int = 4096) -> None:
        if samples < 2:
            raise RequestError(f"samples: got {samples}, expected at least 2")
        self.samples = samples

    def epochs(self, run: Run) -> int:
        """No training unless ``recover.epochs`` asks for it."""
        return 0

    def finish(self, run: Run, fit: Fit) -> None:
        """Computes the statistics anew; says so where there are none."""
        norms = running_norms(run.model)
        if not norms:
            run.report.note("reestimate_norm: the model has no batch norm with running statistics")
            return
        reestimate(run, norms, self.samples)


def running_norms(model: nn.Module) -> list[_BatchNorm]:
    """Batch norms that keep running statistics."""
    return [module for module in model.modules() if isinstance(module, _BatchNorm) and module.track_running_stats]


def reestimate(run: Run, norms: list[_BatchNorm], samples: int) -> None:
    """Averages the batches' statistics over the training split.

    Args:
        run: gives the model and the training samples.
        norms: batch norms of this model.
        samples: of the training split that are passed, at most.
    """
    split = run.data.train
    rows = torch.arange(min(samples, len(split)))
    size = run.settings.trainer.rows
    passed = batches(split, size, rows, seed=run.seed, drop_last=len(rows) > size)
    average_statistics(run.model, norms, (batch.x for batch in passed))
