"""From a network that rounds in floats to a graph of integers."""

from __future__ import annotations

import copy
import warnings
from typing import Any

import torch
from torch import Tensor, nn

from bigopt_plugins.compression.quantization._network import QuantizedNetwork
from bigopt_plugins.compression.quantization._plan import Layer
from bigopt_plugins.compression.quantization._quantizers import ActivationQuantizer, WeightQuantizer


@torch.no_grad()
def positive_norms(network: QuantizedNetwork) -> None:
    """Makes the scales of batch norms positive, their layers' weights with them; the outputs stay the same.

    ``γ · (w·x − μ) / σ = −γ · (−w·x + μ) / σ``: so that folding a norm scales the steps of the integers only.
    """
    for layer in network.plan.layers.values():
        norm = network.norm_of(layer)
        if norm is None:
            continue
        assert norm.running_mean is not None
        sign = torch.where(norm.weight < 0, -1.0, 1.0)
        norm.weight.mul_(sign)
        norm.running_mean.mul_(sign)
        module = network.get_submodule(layer.name)
        network.weight_of(layer).mul_(sign.reshape(-1, *[1] * (network.weight_of(layer).ndim - 1)))
        if isinstance(module.bias, Tensor):
            module.bias.mul_(sign)


@torch.no_grad()
def fold(network: QuantizedNetwork, layer: Layer) -> Tensor | None:
    """Moves what a batch norm adds into its layer's bias, and gives the positive factor that is left for the weight.

    ``w ← w·γ/σ``, ``b ← (b − μ)·γ/σ + β`` with ``σ² = running variance + ε`` (Jacob et al. 2018, eq. 14).
    """
    norm = network.norm_of(layer)
    if norm is None or layer.norm is None:
        return None
    assert norm.running_mean is not None and norm.running_var is not None
    module = network.get_submodule(layer.name)
    factor = norm.weight.abs() / (norm.running_var + norm.eps).sqrt()
    before = module.bias if isinstance(module.bias, Tensor) else torch.zeros_like(norm.running_mean)
    module.bias = nn.Parameter((before - norm.running_mean) * factor + norm.bias, norm.bias.requires_grad)
    network.folded.add(layer.norm)
    return factor


@torch.no_grad()
def fold_all(network: QuantizedNetwork) -> None:
    """Folds every batch norm into its layer's weight and bias, before anything is rounded."""
    positive_norms(network)
    for layer in network.plan.layers.values():
        factor = fold(network, layer)
        if factor is not None:
            weight = network.weight_of(layer)
            weight.mul_(factor.reshape(-1, *[1] * (weight.ndim - 1)))


@torch.no_grad()
def round_bias(network: QuantizedNetwork, layer: Layer, quantizer: WeightQuantizer) -> None:
    """Rounds a frozen layer's bias to the step of its sums, as integer kernels do, which add it to them."""
    given = network.activation_quantizer(layer.input) if layer.input is not None else None
    bias = getattr(network.get_submodule(layer.name), "bias", None)
    if (
        given is None
        or quantizer.scales is None
        or quantizer.granularity == "per_group"
        or not isinstance(bias, Tensor)
    ):
        return
    step = quantizer.scales * given.constants[0]
    bias.copy_((bias / step).round() * step)


def as_integers(network: QuantizedNetwork, example: Tensor) -> tuple[torch.fx.GraphModule, list[dict[str, Any]]]:
    """A graph that stores integers and computes with the operators of integer graphs.

    Args:
        network: left as it is.
        example: raw inputs, at least 2 rows.

    Returns:
        the graph, and what each layer's weight takes.
    """
    network = copy.deepcopy(network).cpu().eval().requires_grad_(False)
    example = example.cpu()
    rows = []
    for activation in network.activations.values():
        assert isinstance(activation, ActivationQuantizer)
        activation.freeze()
    for layer in network.plan.layers.values():
        quantizer = network.weight_quantizer(layer.name)
        factor = fold(network, layer)
        if quantizer is not None:
            matrix = layer.op == "linear" and layer.width > 2
            quantizer.freeze(network.weight_of(layer), factor, transpose=matrix)
            rows.append(layer_facts(network, layer, quantizer))
            if not matrix:
                round_bias(network, layer, quantizer)
        elif factor is not None:
            network.weight_of(layer).mul_(factor.reshape(-1, *[1] * (network.weight_of(layer).ndim - 1)))
    network.state = "integers"
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        program = torch.export.export(
            network, (example,), dynamic_shapes=({0: torch.export.Dim("batch", min=1)},), strict=False
        )
    graph = program.module()
    assert isinstance(graph, torch.fx.GraphModule)
    return graph, rows


def layer_facts(network: QuantizedNetwork, layer: Layer, quantizer: WeightQuantizer) -> dict[str, Any]:
    """What a frozen weight takes: bits, bytes with its steps, and bytes that an entropy coder would need."""
    assert quantizer.integers is not None and quantizer.scales is not None
    given = network.activation_quantizer(layer.input) if layer.input is not None else None
    count, steps = quantizer.integers.numel(), 4 * len(quantizer.scales)
    share = quantizer.integers.unique(return_counts=True)[1].double() / count
    stored = next(bits for bits in (2, 4, 8) if quantizer.grid.bits <= bits)
    return {
        "layer": layer.name,
        "bits": quantizer.grid.bits,
        "stored_bits": stored,
        "activation_bits": given.grid.bits if given is not None else 8 if network.dynamic else 32,
        "granularity": quantizer.granularity,
        "weights": count,
        "bytes": -(-count * stored // 8) + steps,
        "entropy_bytes": int(count * -(share * share.log2()).sum().item() / 8) + 1 + steps,
    }
