"""What makes coarse grids lose less: before the rounding, in the rounding, and after it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from bigopt.vocabulary.network import Network
from bigopt_plugins.compression.quantization._bias_correction import correct_biases
from bigopt_plugins.compression.quantization._equalisation import drop_unreached, equalise
from bigopt_plugins.compression.quantization._folding import fold_norms
from bigopt_plugins.compression.quantization._gptq import gptq
from bigopt_plugins.compression.quantization._grid import rows_of
from bigopt_plugins.compression.quantization._hessian import each_layer, matrix
from bigopt_plugins.compression.quantization._network import QuantizedNetwork
from bigopt_plugins.compression.quantization._quantizers import WeightQuantizer
from bigopt_plugins.compression.quantization._smoothquant import smooth

SOLVABLE = ("conv1d", "conv2d", "linear")
SHAPED = ("conv1d", "conv2d", "conv3d", "linear")


@dataclass(frozen=True)
class Options:
    """Which of them to use.

    Attributes:
        equalise: cross-layer equalisation.
        smoothquant: how much of the activations' range goes to the weights, in [0, 1]; None for nothing.
        rounding: to nearest, or by GPTQ.
        bias_correction: empirical bias correction.
    """

    equalise: bool = False
    smoothquant: float | None = None
    rounding: Literal["nearest", "gptq"] = "nearest"
    bias_correction: bool = False


def before(model: Network, samples: Tensor, options: Options) -> list[str]:
    """Moves ranges between layers of the float model, in place; its outputs stay the same.

    Args:
        model: trained.
        samples: raw training inputs ``(N, …)``.
        options: of which ``equalise`` and ``smoothquant`` are read.

    Returns:
        what a reader should know.
    """
    notes = []
    if options.equalise:
        fold_norms(model, samples[:2])
        done = equalise(model, samples[:2])
        plain = drop_unreached(model, done.clips, samples)
        notes.append(f"{len(done.chains)} chains of layers were equalised: {'; '.join(map(', '.join, done.chains))}")
        kept = [name for name in done.clips if name not in plain]
        if plain:
            notes.append(f"no training sample reaches the limit of these ReLU6, which became ReLU: {', '.join(plain)}")
        if kept:
            notes.append(f"these ReLU6 clip each channel at a limit of its own now: {', '.join(kept)}")
        notes += [f"{name} could not be equalised with what reads it: {reason}" for name, reason in done.left.items()]
    if options.smoothquant is not None:
        groups = smooth(model, samples, options.smoothquant)
        divided = [name for group in groups if not group.folded for name in group.linears]
        if not groups:
            notes.append("smoothquant: no linear layer reads the output of a layer norm")
        if divided:
            notes.append(
                "smoothquant: a residual reads the same norm, so these layers divide their own inputs: "
                + ", ".join(divided)
            )
    return notes


@torch.no_grad()
def after(network: QuantizedNetwork, samples: Tensor, options: Options) -> list[str]:
    """Rounds the weights anew within their steps, and corrects biases; in place.

    Args:
        network: calibrated, in state ``fake``.
        samples: raw training inputs ``(N, …)``.
        options: of which ``rounding`` and ``bias_correction`` are read.

    Returns:
        what a reader should know.
    """
    import copy

    notes = []
    layers = network.plan.layers
    reference = copy.deepcopy(network) if options.bias_correction else None
    if options.rounding == "gptq":
        _solve(network, samples)
        rest = [layer.name for layer in layers.values() if layer.op not in (*SOLVABLE, "embedding")]
        notes += [f"{name} is rounded to nearest: gptq knows no such layer" for name in rest]
    if reference is not None:
        reference.state = "float"
        names = [layer.name for layer in layers.values() if layer.op in SHAPED]
        correct_biases(reference, network, names, samples)
    return notes


def _solve(network: QuantizedNetwork, samples: Tensor) -> None:
    """Every weight becomes the numbers that GPTQ's integers stand for, which rounding to nearest leaves as they are."""

    def act(name: str, module: nn.Module, hessian: Tensor) -> None:
        quantizer = network.weight_quantizer(name)
        if quantizer is None:
            return
        weight = network.weight_of(network.plan.layers[name])
        step, zero = spread(quantizer, weight)
        shape = matrix(module).shape
        step, zero = step.reshape(shape), zero.reshape(shape)
        integers = gptq(matrix(module), hessian, step, zero, quantizer.grid.low, quantizer.grid.high)
        weight.copy_(((integers - zero) * step).reshape(weight.shape))

    names = [layer.name for layer in network.plan.layers.values() if layer.op in SOLVABLE]
    each_layer(network, names, samples, act)


def spread(quantizer: WeightQuantizer, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Step and zero point of every weight, of the weight's shape."""
    rows = rows_of(weight, quantizer.granularity, quantizer.group_size)
    step, zero = quantizer.step().detach(), quantizer.zero
    return step.expand(rows.shape).reshape(weight.shape), zero.expand(rows.shape).reshape(weight.shape)
