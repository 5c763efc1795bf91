"""Running statistics of batch norms, computed anew after compression."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from bigopt.data.batches import batches
from bigopt.train.modes import evaluating
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


@torch.no_grad()
def reestimate(run: Run, norms: list[_BatchNorm], samples: int) -> None:
    """Averages the batches' statistics; everything but the batch norms is in evaluation mode meanwhile.

    Args:
        run: gives the model and the training samples.
        norms: batch norms of this model.
        samples: of the training split that are passed, at most.
    """
    split = run.data.train
    rows = torch.arange(min(samples, len(split)))
    size = run.settings.trainer.batch_size
    momenta = [norm.momentum for norm in norms]
    device = next(run.model.parameters()).device
    with evaluating(run.model):
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # a plain average over the batches
            norm.train()
        for batch in batches(split, size, rows, seed=run.seed, drop_last=len(rows) > size):
            run.model(batch.x.to(device))
    for norm, momentum in zip(norms, momenta, strict=True):
        anything: Any = norm
        anything.momentum = momentum
