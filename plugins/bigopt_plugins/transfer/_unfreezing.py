"""Gradual unfreezing and discriminative learning rates, by blocks from the head down."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytorch_lightning as pl
from torch import nn


def unfrozen(blocks: Sequence[str], epoch: int, every: int, start: int = 1) -> list[str]:
    """The blocks that train in an epoch: first the head, then one more every so many epochs (Howard and Ruder 2018).

    Args:
        blocks: from the input to the head.
        epoch: 0-based.
        every: epochs between two more blocks.
        start: blocks of the first epoch.
    """
    count = min(len(blocks), start + epoch // every)
    return list(blocks[len(blocks) - count :])


def rates(blocks: Sequence[str], decay: float, below: float = 1.0) -> dict[str, float]:
    """Each block's learning rate as a share of the head's: ``decay`` for each step down, times ``below`` off the head.

    Args:
        blocks: from the input to the head.
        decay: factor from one block to the next one below it (Howard and Ruder 2018: 1 / 2.6).
        below: further factor of everything below the head.
    """
    depth = {name: len(blocks) - 1 - place for place, name in enumerate(blocks)}
    return {name: decay**steps * (below if steps else 1.0) for name, steps in depth.items()}


class GradualUnfreezing(pl.Callback):
    """Lets one more block train every so many epochs; all of them once the fit is over.

    Args:
        model: whose blocks these are; all of them are trainable when the optimizer is built.
        blocks: from the input to the head.
        every: epochs between two more blocks.
    """

    def __init__(self, model: nn.Module, blocks: Sequence[str], every: int) -> None:
        self.model = model
        self.blocks = list(blocks)
        self.every = every

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Freezes what is not yet to be trained; the state follows from the epoch, so that a resumed fit has it too."""
        epoch: Any = pl_module.epoch
        self.show(int(epoch))

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Everything that was trainable is so again."""
        for name in self.blocks:
            self.model.get_submodule(name).requires_grad_(True)

    def show(self, epoch: int) -> None:
        """Sets what trains in an epoch (0-based)."""
        chosen = set(unfrozen(self.blocks, epoch, self.every))
        for name in self.blocks:
            self.model.get_submodule(name).requires_grad_(name in chosen)


def split_groups(model: nn.Module, groups: list[dict[str, Any]], shares: dict[str, float]) -> list[dict[str, Any]]:
    """Parameter groups, each split by the share of the rate that its parameters' blocks have.

    Args:
        model: whose blocks these are; parameters outside of them learn at the lowest share.
        groups: of the optimizer.
        shares: learning rate of each block as a share of the group's.
    """
    lowest = min(shares.values())
    share = {id(parameter): lowest for parameter in model.parameters()}
    for name, value in shares.items():
        share |= {id(parameter): value for parameter in model.get_submodule(name).parameters()}
    split: list[dict[str, Any]] = []
    for group in groups:
        for value in sorted({share.get(id(p), 1.0) for p in group["params"]}, reverse=True):
            chosen = [p for p in group["params"] if share.get(id(p), 1.0) == value]
            split.append({**group, "params": chosen, "lr": group["lr"] * value})
    return split
