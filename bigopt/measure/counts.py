"""What counting gives, for a model in memory and for a file alike."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from bigopt.vocabulary.patterns import fits

FLOAT = 32
"""Bits that an operand counts with unless it is known to be narrower."""

Bits = Mapping[str, tuple[int, int]] | tuple[int, int] | None
"""Widths of weights and activations: of every layer, or by a layer's name or name pattern."""


@dataclass(frozen=True)
class Layer:
    """The multiply-accumulate operations of one operator.

    Attributes:
        name: module that it belongs to; in a graph or a file, the operator with its position.
        macs: of one sample.
        weight_bits: width of the second operand (in attention there is no weight, but a second operand).
        activation_bits: width of the first operand.
    """

    name: str
    macs: int
    weight_bits: int = FLOAT
    activation_bits: int = FLOAT

    @property
    def bops(self) -> int:
        """Bit operations: MACs × weight bits × activation bits (Baskin et al. 2018, arXiv:1804.10969)."""
        return self.macs * self.weight_bits * self.activation_bits


@dataclass(frozen=True)
class Counts:
    """Size and work of a model.

    Attributes:
        parameters: elements of the weights, biases and norms' scales; buffers, quantization scales and constants of
            the input normalisation are none.
        nonzero: those that are not zero; of integers, those that do not stand for zero.
        macs: multiply-accumulate operations of one sample.
        bops: bit operations of one sample.
        weight_bits: mean width of a parameter.
        layers: the operators that ``macs`` is the sum of, in order of execution.
    """

    parameters: int
    nonzero: int
    macs: int
    bops: int
    weight_bits: float
    layers: tuple[Layer, ...]


def with_bits(layers: Iterable[Layer], bits: Bits) -> tuple[Layer, ...]:
    """The layers with the widths that somebody who knows better gives them.

    Args:
        layers: as counted.
        bits: None leaves the widths that were found.
    """
    if bits is None:
        return tuple(layers)
    if isinstance(bits, tuple):
        return tuple(Layer(layer.name, layer.macs, *bits) for layer in layers)
    return tuple(Layer(layer.name, layer.macs, *_widths(layer, bits)) for layer in layers)


def width_of_range(arguments: Sequence[object]) -> int | None:
    """Width of what a quantize operator gives, from the limits among its arguments; None where it names none.

    Limits that leave out a bit of eight (``reduce_range``) are headroom for 8-bit products, so they count as eight.
    """
    limits = [value for value in arguments if type(value) is int][-2:]
    if len(limits) < 2 or limits[1] <= limits[0]:
        return None
    width = (limits[1] - limits[0]).bit_length()
    return 8 if width == 7 else width


def _widths(layer: Layer, bits: Mapping[str, tuple[int, int]]) -> tuple[int, int]:
    if layer.name in bits:
        return bits[layer.name]
    matches = (width for pattern, width in bits.items() if fits(layer.name, [pattern]))
    return next(matches, (layer.weight_bits, layer.activation_bits))


def refined(counts: Counts, bits: Bits) -> Counts:
    """Counts with the widths that a compression step claims, where the model shows integers at all.

    A step that stores 4-bit weights in bytes is believed; one that left a layer in float is not.
    """
    if not isinstance(bits, tuple):
        return counts
    layers = tuple(
        Layer(layer.name, layer.macs, _narrower(layer.weight_bits, bits[0]), _narrower(layer.activation_bits, bits[1]))
        for layer in counts.layers
    )
    return replace(counts, layers=layers, bops=sum(layer.bops for layer in layers))


def _narrower(shown: int, claimed: int) -> int:
    return min(shown, claimed) if shown < FLOAT else shown
