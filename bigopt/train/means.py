"""Running means of loss terms; on a GPU they stay there, so that no step waits for a value."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from bigopt.train import ddp


class Means:
    """Means of the total and of every term, weighted by rows; a term counts where it occurred."""

    def __init__(self) -> None:
        self.sums: dict[str, Tensor | float] = {}
        self.rows: dict[str, int] = {}
        self._bad: Tensor | None = None

    def clear(self) -> None:
        """Forgets everything: a new epoch begins."""
        self.sums, self.rows, self._bad = {}, {}, None

    def add(self, terms: dict[str, Tensor], loss: Tensor, rows: int, batch: int) -> None:
        """Takes in one batch, counted from 0."""
        at_hand = loss.device.type == "cpu"
        for name, term in (("loss", loss), *terms.items()):
            value = term.item() if at_hand else term.detach().double()
            self.sums[name] = self.sums.get(name, 0.0) + value * rows
            self.rows[name] = self.rows.get(name, 0) + rows
        if not at_hand:  # on the CPU each loss is looked at when it comes
            self._note_bad(loss.detach(), batch)

    def _note_bad(self, loss: Tensor, batch: int) -> None:
        """Remembers the first batch whose loss was not finite, without waiting for the device."""
        now = torch.where(torch.isfinite(loss), -1, batch)
        self._bad = now if self._bad is None else torch.where(self._bad >= 0, self._bad, now)

    def first_bad(self) -> int | None:
        """Number of the first batch whose loss was not finite, on a GPU; None when there was none."""
        return None if self._bad is None or int(self._bad) < 0 else int(self._bad)

    def values(self) -> dict[str, float]:
        """The means so far over the rows of all ranks, by ``train/<term>``."""
        ranks = ddp.gather({name: (float(total), self.rows[name]) for name, total in self.sums.items()})
        names = dict.fromkeys(name for held in ranks for name in held)
        held = {name: [one[name] for one in ranks if name in one] for name in names}
        return {f"train/{name}": sum(s for s, _ in held[name]) / sum(n for _, n in held[name]) for name in names}

    def loss(self) -> dict[str, float]:
        """This rank's mean of the total so far, for the progress bar; nothing before the first batch."""
        return {"loss": float(self.sums["loss"]) / self.rows["loss"]} if self.sums else {}

    def state(self) -> dict[str, Any]:
        """Plain state for a checkpoint."""
        return {"sums": dict(self.sums), "rows": dict(self.rows)}

    def load(self, sums: dict[str, Tensor | float], rows: dict[str, int], device: torch.device) -> None:
        """Continues from saved state."""
        self.sums = {name: total.to(device) if isinstance(total, Tensor) else total for name, total in sums.items()}
        self.rows = dict(rows)
