"""Per-layer ratios from a sensitivity scan."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass
class Shares:
    """What every layer may lose, and how much of it has gone.

    Attributes:
        allowed: largest share of each layer's units whose own drop stays within the limit, by layer.
        units: units of each layer before anything was removed.
        drops: the drop that the scan saw at the allowed share.
        reached: share of all units that has been asked for so far.
    """

    allowed: dict[str, float]
    units: dict[str, int]
    drops: dict[str, float]
    reached: float = 0.0

    @classmethod
    def of(cls, rows: Sequence[Mapping[str, Any]], units: Mapping[str, int], limit: float) -> Shares:
        """Reads a scan.

        A share is allowed only if all smaller ones of the layer are: a large share that happens to cost little
        beyond one that costs much is luck.

        Args:
            rows: ``layer``, ``strength`` and ``drop`` of every cell.
            units: of each layer that can lose some.
            limit: largest drop that a layer may cause on its own.
        """
        allowed = dict.fromkeys(units, 0.0)
        drops = dict.fromkeys(units, 0.0)
        for layer in units:
            cells = sorted((float(row["strength"]), float(row["drop"])) for row in rows if row["layer"] == layer)
            for strength, drop in cells:
                if not drop <= limit:
                    break
                allowed[layer], drops[layer] = strength, drop
        return cls(allowed, dict(units), drops)

    def reachable(self) -> float:
        """Share of all units that goes if every layer loses all that it may."""
        total = sum(self.units.values())
        return sum(self.allowed[name] * count for name, count in self.units.items()) / total if total else 0.0

    def ratios(self, total: float) -> dict[str, float]:
        """Share of each layer for this share of all units: the allowed ones, all scaled by the same factor ≤ 1."""
        most = self.reachable()
        factor = min(1.0, total / most) if most else 0.0
        return {name: factor * share for name, share in self.allowed.items()}

    def next(self, left: Mapping[str, int], strength: float) -> dict[str, float]:
        """Shares of what is left of each layer, for the next round.

        Args:
            left: units that each layer still has.
            strength: share of all that is left to go in this round.
        """
        self.reached = 1 - (1 - self.reached) * (1 - strength)
        wanted = self.ratios(self.reached)
        keep = {name: self.units[name] - int(wanted.get(name, 0.0) * self.units[name] + 1e-9) for name in self.units}
        return {name: max(0.0, 1 - keep.get(name, count) / count) for name, count in left.items() if count}

    def table(self, total: float) -> list[dict[str, Any]]:
        """One row per layer: units, what it may lose, the drop seen there, and what it will lose."""
        ratios = self.ratios(total)
        return [
            {
                "layer": name,
                "units": count,
                "allowed": self.allowed[name],
                "drop": self.drops[name],
                "ratio": ratios[name],
            }
            for name, count in self.units.items()
        ]
