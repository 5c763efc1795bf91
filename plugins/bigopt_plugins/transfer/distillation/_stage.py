"""FitNets' first stage: the lower part of the student is trained on hints alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from bigopt.vocabulary.batch import Batch, Output
from bigopt.vocabulary.part import Part
from bigopt.vocabulary.run import Run
from bigopt_plugins.transfer.distillation._ask import ask
from bigopt_plugins.transfer.distillation._terms import Terms, Weights


class HintStage(Part):
    """Hints in the place of the task's loss; the last epoch is kept, since labels cannot judge what has no head yet.

    Args:
        run: the student's.
        models: the teachers.
        terms: the pairs of layers, one entry a teacher.
        shares: weights of the teachers.
    """

    def __init__(self, run: Run, models: nn.Module, terms: Sequence[Terms], shares: Sequence[float]) -> None:
        self.models = models
        self.terms = list(terms)
        self.shares = list(shares)
        self._state: dict[str, nn.Module] = {}

    def modules(self, run: Run) -> dict[str, nn.Module]:
        """The regressors."""
        x = run.data.train.take(torch.arange(min(2, len(run.data.train))))
        self._state = {n: module for terms in self.terms for n, module in terms.regressors(run.model, x).items()}
        return self._state

    def taps(self, run: Run) -> Sequence[str]:
        """The student's layers."""
        return [name for terms in self.terms for name in terms.asked()]

    def loss(self, run: Run, batch: Batch, output: Output) -> dict[str, Tensor]:
        """The hints' loss as the only one."""
        models: Any = self.models
        _, targets = ask(models, self.terms, batch.x)
        losses = [
            self.shares[one.number] * one.loss(Weights(hints=1.0), output.taps, targets, self._state)["hints"]
            for one in self.terms
        ]
        return {"task": torch.stack(losses).sum()}

    def callbacks(self, run: Run) -> list[Any]:
        """Keeps the last epoch."""
        from bigopt_plugins.transfer._last_epoch import LastEpoch

        return [LastEpoch(run)]
