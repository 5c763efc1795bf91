"""Mixed precision: bits per layer from what each layer costs at each width."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from bigopt.vocabulary.errors import RequestError

FLOAT = 32


@dataclass(frozen=True)
class Mixed:
    """Which widths to choose from, and within what.

    Attributes:
        bits: widths of weights to choose from.
        max_bytes: of all rounded weights with their steps; the file is larger by its biases and its graph.
        max_drop: of the objective, summed over what the scan saw for each layer alone.
    """

    bits: tuple[int, ...] = (8, 4)
    max_bytes: int | None = None
    max_drop: float | None = None

    def problems(self) -> list[str]:
        """What is wrong with it, one line each."""
        found = []
        if not self.bits or any(not 2 <= width <= 8 for width in self.bits):
            found.append(f"mixed.bits: got {list(self.bits)}, expected widths of 2 to 8")
        if self.max_bytes is None and self.max_drop is None:
            found.append("mixed: got neither max_bytes nor max_drop, expected at least one")
        if self.max_bytes is not None and self.max_bytes < 1:
            found.append(f"mixed.max_bytes: got {self.max_bytes}, expected at least 1")
        if self.max_drop is not None and not self.max_drop >= 0:
            found.append(f"mixed.max_drop: got {self.max_drop}, expected 0 or more")
        return found


def strength_of(bits: int) -> float:
    """The share of a weight's 32 bits that a width takes away."""
    return 1 - bits / FLOAT


def width_of(strength: float) -> int:
    """The bits that a strength leaves of 32."""
    return round(FLOAT * (1 - strength))


@dataclass(frozen=True)
class Cost:
    """What one layer costs at one width.

    Attributes:
        bytes: its size.
        loss: how much worse the model is with only this layer at this width.
    """

    bytes: int
    loss: float


@dataclass
class Assignment:
    """Bits of each layer.

    Attributes:
        bits: by layer.
        bytes: of all layers together.
        loss: sum of the layers' losses: an estimate, since errors need not add up.
        steps: layer and its new bits in the order in which they were narrowed.
    """

    bits: dict[str, int]
    bytes: int
    loss: float
    steps: list[tuple[str, int]] = field(default_factory=list)


def assign(
    table: Mapping[tuple[str, int], Cost], *, max_bytes: int | None = None, max_drop: float | None = None
) -> Assignment:
    """Bits per layer, greedily: always the narrowing that costs the least loss for the bytes that it saves.

    Every layer starts at its largest width. With ``max_bytes`` layers are narrowed until they fit, and layers that the
    last step made needless to narrow are widened again where there is room; with ``max_drop`` they are narrowed as
    long as the losses add up to no more. With both, ``max_bytes`` has to be reached within ``max_drop``. The ranking
    by second-order or measured sensitivity per byte follows Dong et al. 2020 (HAWQ-V2, arXiv:1911.03852) with measured
    losses in the Hessian's place.

    Args:
        table: by layer and bits.
        max_bytes: of all layers together.
        max_drop: sum of the losses.

    Raises:
        RequestError: neither or an impossible limit.
    """
    if max_bytes is None and max_drop is None:
        raise RequestError("mixed: expected max_bytes, max_drop or both, got neither")
    widths = _widths(table)
    bits = {layer: options[0] for layer, options in widths.items()}
    steps: list[tuple[str, int]] = []
    while max_bytes is None or _bytes(table, bits) > max_bytes:
        choice = _cheapest(table, widths, bits, max_drop)
        if choice is None:
            break
        bits[choice[0]] = choice[1]
        steps.append(choice)
    if max_bytes is not None:
        if _bytes(table, bits) > max_bytes:
            raise RequestError(_impossible(table, bits, max_bytes, max_drop))
        _widen(table, widths, bits, max_bytes)
    return Assignment(bits, _bytes(table, bits), _loss(table, bits), steps)


def _widths(table: Mapping[tuple[str, int], Cost]) -> dict[str, list[int]]:
    """Widths of each layer, the largest first, in the table's order of layers."""
    widths: dict[str, list[int]] = {}
    for layer, bits in table:
        widths.setdefault(layer, []).append(bits)
    return {layer: sorted(options, reverse=True) for layer, options in widths.items()}


def _bytes(table: Mapping[tuple[str, int], Cost], bits: Mapping[str, int]) -> int:
    return sum(table[item].bytes for item in bits.items())


def _loss(table: Mapping[tuple[str, int], Cost], bits: Mapping[str, int]) -> float:
    return sum(table[item].loss for item in bits.items())


def _cheapest(
    table: Mapping[tuple[str, int], Cost], widths: Mapping[str, list[int]], bits: Mapping[str, int], limit: float | None
) -> tuple[str, int] | None:
    """The narrowing with the least loss per byte saved that stays within the limit; of equals the larger saving."""
    now = _loss(table, bits)
    best: tuple[float, int, int] | None = None
    choice: tuple[str, int] | None = None
    for number, (layer, options) in enumerate(widths.items()):
        old = table[layer, bits[layer]]
        for width in options:
            new = table[layer, width]
            saved, lost = old.bytes - new.bytes, new.loss - old.loss
            if width >= bits[layer] or saved <= 0 or (limit is not None and now + lost > limit + 1e-12):
                continue
            rank = (max(lost, 0.0) / saved, -saved, number)
            if best is None or rank < best:
                best, choice = rank, (layer, width)
    return choice


def _widen(
    table: Mapping[tuple[str, int], Cost], widths: Mapping[str, list[int]], bits: dict[str, int], max_bytes: int
) -> None:
    """Spends what room is left where it takes back the most loss."""
    while True:
        room = max_bytes - _bytes(table, bits)
        gains = [
            (table[layer, bits[layer]].loss - table[layer, width].loss, -width, layer)
            for layer, options in widths.items()
            for width in options
            if width > bits[layer] and table[layer, width].bytes - table[layer, bits[layer]].bytes <= room
        ]
        best = max(gains, default=(0.0, 0, ""))
        if best[0] <= 0:
            return
        bits[best[2]] = -best[1]


def _impossible(
    table: Mapping[tuple[str, int], Cost], bits: Mapping[str, int], max_bytes: int, max_drop: float | None
) -> str:
    reached = _bytes(table, bits)
    within = "" if max_drop is None else f" within max_drop {max_drop:g}"
    return f"mixed.max_bytes: got {max_bytes}, but the layers cannot be smaller than {reached} bytes{within}"
