"""From a trained network to one that rounds: what to round, and with which steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from bigopt.train.modes import evaluating
from bigopt.vocabulary.network import Network
from bigopt_plugins.compression.quantization._calibration import Method, Sample, steps
from bigopt_plugins.compression.quantization._calls import survey
from bigopt_plugins.compression.quantization._convert import fold_all, positive_norms
from bigopt_plugins.compression.quantization._grid import (
    Granularity,
    Grid,
    activation_grid,
    group_fits,
    rows_of,
    weight_grid,
)
from bigopt_plugins.compression.quantization._network import QuantizedNetwork, slashed
from bigopt_plugins.compression.quantization._plan import Layer, make_plan
from bigopt_plugins.compression.quantization._quantizers import ActivationQuantizer, WeightQuantizer

VALUES = 1 << 15
"""Values of each activation that are kept of a batch of calibration samples."""
BATCH = 256
SURVEYED = 2


@dataclass(frozen=True)
class Recipe:
    """How a network is rounded.

    Attributes:
        bits: width of weights.
        activation_bits: width of activations; None leaves them in float.
        dynamic: round inputs of layers over the range of each batch, instead of with fixed steps.
        granularity: which weights share a step.
        group_size: weights of a group, for ``per_group``.
        symmetric: whether 0 is the integer 0 in weights.
        reduce_range: 7-bit integers where weights have 8 bits and meet 8-bit activations.
        calibration: how ranges are chosen.
        percentile: share of the values within a range, in percent.
        keep_norms: leave batch norms to be trained, and fold them at the end.
        widths: other widths of weights, by a layer's name.
        activation_widths: other widths of activations, by a call's key.
    """

    bits: int
    activation_bits: int | None = None
    dynamic: bool = False
    granularity: Granularity = "per_channel"
    group_size: int = 32
    symmetric: bool = True
    reduce_range: bool = False
    calibration: Method = "mse"
    percentile: float = 99.99
    keep_norms: bool = False
    widths: Mapping[str, int] = field(default_factory=dict)
    activation_widths: Mapping[str, int] = field(default_factory=dict)


def build(
    model: Network, samples: Tensor, recipe: Recipe, seed: int, ignore: Sequence[str] = ()
) -> tuple[QuantizedNetwork, list[str]]:
    """A network that rounds as the recipe says; it shares the modules of the model.

    Args:
        model: trained; its batch norms change as :func:`fold_all` or :func:`positive_norms` say.
        samples: raw training inputs ``(N, …)`` that ranges are taken from.
        recipe: how.
        seed: of the values of activations that are looked at.
        ignore: name patterns of layers that stay in float.

    Returns:
        the network in state ``fake``, and what a reader should know.
    """
    calls, output = survey(model, samples[:SURVEYED])
    network = QuantizedNetwork(model, make_plan(model, calls, output, ignore))
    notes: list[str] = []
    if recipe.keep_norms:
        positive_norms(network)
    else:
        fold_all(network)
    if recipe.activation_bits is not None and not recipe.dynamic:
        _round_activations(network, samples, recipe, seed)
    network.dynamic = recipe.dynamic
    for layer in network.plan.layers.values():
        granularity, reason = _granularity(network, layer, recipe)
        if reason is not None:
            notes.append(reason)
        quantizer = weight_quantizer(network.weight_of(layer), weight_grid_of(layer, recipe), granularity, recipe)
        network.weights[slashed(layer.name)] = quantizer
    network.state = "fake"
    return network, notes


def weight_grid_of(layer: Layer, recipe: Recipe) -> Grid:
    """The integers of a layer's weight."""
    met = recipe.activation_bits is not None and layer.op != "embedding"
    return weight_grid(recipe.widths.get(layer.name, recipe.bits), recipe.symmetric, recipe.reduce_range and met)


def weight_quantizer(weight: Tensor, grid: Grid, granularity: Granularity, recipe: Recipe) -> WeightQuantizer:
    """A calibrated quantizer of a weight."""
    rows = rows_of(weight.detach().float(), granularity, recipe.group_size)
    step, zero = steps(rows, grid, recipe.calibration, recipe.percentile)
    return WeightQuantizer(grid, granularity, recipe.group_size, step, zero, rows.shape[1])


def _granularity(network: QuantizedNetwork, layer: Layer, recipe: Recipe) -> tuple[Granularity, str | None]:
    if recipe.granularity != "per_group" or group_fits(network.weight_of(layer), recipe.group_size):
        return recipe.granularity, None
    return (
        "per_channel",
        f"{layer.name}: groups of {recipe.group_size} do not divide its rows; it is rounded per channel",
    )


def _round_activations(network: QuantizedNetwork, samples: Tensor, recipe: Recipe, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    seen = observe(network, samples, VALUES, generator)
    raw = {layer.input for layer in network.plan.layers.values() if layer.first}
    assert recipe.activation_bits is not None
    for key in network.plan.activations:
        if key not in seen:
            continue
        bits = 8 if key in raw else recipe.activation_widths.get(key, recipe.activation_bits)
        grid = activation_grid(bits)
        step, zero = steps(seen[key].values(), grid, recipe.calibration, recipe.percentile)
        quantizer = ActivationQuantizer(grid, step.item(), zero.item(), seen[key].features)
        network.activations[slashed(key)] = quantizer.to(samples.device)


def observe(network: QuantizedNetwork, samples: Tensor, size: int, generator: torch.Generator) -> dict[str, Sample]:
    """Samples of every activation that is to be rounded, as the unrounded network computes it."""
    network.state, network.samples = "observe", {key: Sample(size, generator) for key in network.plan.activations}
    try:
        with evaluating(network), torch.no_grad():
            for rows in samples.split(BATCH):
                network(rows)
        return {key: sample for key, sample in network.samples.items() if sample.kept}
    finally:
        network.state, network.samples = "float", {}
