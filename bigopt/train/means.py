"""Running means of loss terms, kept on the device so that no step waits for a value."""

from __future__ import annotations

import torch
from torch import Tensor


class Means:
    """Means of the total and of every term, weighted by rows; a term counts where it occurred."""

    def __init__(self) -> None:
        self.sums: dict[str, Tensor] = {}
        self.rows: dict[str, int] = {}

    def add(self, terms: dict[str, Tensor], loss: Tensor, rows: int) -> None:
        """Takes in one batch."""
        with torch.no_grad():
            for name, term in (("loss", loss), *terms.items()):
                value = term.detach().double() * rows
                self.sums[name] = self.sums[name] + value if name in self.sums else value
                self.rows[name] = self.rows.get(name, 0) + rows

    def finite(self) -> bool:
        """Whether no batch so far had a loss that was not finite."""
        return "loss" not in self.sums or bool(torch.isfinite(self.sums["loss"]))

    def values(self) -> dict[str, float]:
        """The means so far, by ``train/<term>``."""
        return {f"train/{name}": total.item() / self.rows[name] for name, total in self.sums.items()}

    def state(self) -> dict[str, dict[str, Tensor] | dict[str, int]]:
        """Plain state for a checkpoint."""
        return {"sums": {name: total.cpu() for name, total in self.sums.items()}, "rows": dict(self.rows)}

    def load(self, sums: dict[str, Tensor], rows: dict[str, int], device: torch.device) -> None:
        """Continues from saved state."""
        self.sums = {name: total.to(device) for name, total in sums.items()}
        self.rows = {name: int(count) for name, count in rows.items()}
