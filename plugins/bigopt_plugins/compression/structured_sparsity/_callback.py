"""The proximal step after each optimizer step; imported only when a fit starts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pytorch_lightning.callbacks import Callback

from bigopt_plugins.compression.structured_sparsity._penalty import Family, magnitudes, shrink

LAST = "structured_sparsity/epoch"
"""Metric by which a fit keeps its last epoch: an earlier one has a better accuracy and no sparsity."""


class Proximal(Callback):
    """Shrinks groups after each optimizer step, and says how many are at zero after each epoch.

    Args:
        families: the groups.
        weights: λ of each family; the step is the learning rate times λ. None takes no step (the penalty is in the
            loss).
        most: share of a family's groups that may be at zero.
        references: root mean squares for reweighting; None for none.
    """

    def __init__(
        self,
        families: Sequence[Family],
        weights: Sequence[float] | None,
        most: float,
        references: Sequence[float] | None = None,
    ) -> None:
        self.families = list(families)
        self.weights = weights
        self.most = most
        self.references = references
        self.step = 0

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Remembers where an interrupted fit was."""
        self.step = pl_module.step

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *_: Any) -> None:
        """Takes the step, once for each optimizer step."""
        if self.weights is not None and pl_module.step != self.step:
            thresholds = [pl_module.rate * weight for weight in self.weights]
            shrink(self.families, thresholds, self.most, self.references)
        self.step = pl_module.step

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Logs the epoch, and the share of groups at zero."""
        total = sum(len(family.sizes) for family in self.families)
        zero = sum(int((magnitudes(family) == 0).sum()) for family in self.families)
        values = {LAST: float(pl_module.epoch + 1), "structured_sparsity/zero": zero / max(1, total)}
        pl_module.log_dict(values, on_epoch=True, on_step=False)
