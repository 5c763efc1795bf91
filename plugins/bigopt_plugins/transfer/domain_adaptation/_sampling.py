"""Class-balanced sampling of the source."""

from __future__ import annotations

from bigopt.vocabulary.batch import Batch
from bigopt.vocabulary.data import Split
from bigopt.vocabulary.part import Part
from bigopt.vocabulary.run import Run
from bigopt_plugins.transfer.domain_adaptation._domains import Balance


class Balanced(Part):
    """Draws every class as often while the source model is trained alone.

    Args:
        balance: draws; None leaves batches as they are.
    """

    def __init__(self, balance: Balance | None) -> None:
        self.balance = balance

    def batch(self, run: Run, batch: Batch) -> Batch:
        """The batch drawn anew."""
        return batch if self.balance is None else drawn_anew(run.data.train, self.balance, batch)


def drawn_anew(split: Split, balance: Balance, batch: Batch) -> Batch:
    """As many rows of the split as the batch has, every class as likely."""
    index, device = balance.draw(len(batch.x)), batch.x.device
    return Batch(split.take(index).to(device), split.y[index].to(device), index.to(device))
