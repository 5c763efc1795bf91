"""Parameters, multiply-accumulate and bit operations of a model in memory."""

from __future__ import annotations

from torch import Tensor, nn

from bigopt.measure._inference import blank_rows, device_of, inference, quiet
from bigopt.measure._macs import MacCounter
from bigopt.measure._weights import weights
from bigopt.measure.counts import Bits, Counts, with_bits


def count(model: nn.Module, example: Tensor, bits: Bits = None) -> Counts:
    """Counts a model in memory, eager or exported.

    MACs are seen while one sample runs through the model, below autograd: whatever calls a matrix product or a
    convolution is counted, in a functional call as in a module. Attention is made to run in its eager form meanwhile,
    since fused kernels hide their products. Norms, activations and additions count nothing, as is usual.

    Parameters are the weights of the net as it would be trained, batch norm's included; of a quantized graph they are
    the integer weights and the biases that it reads.

    Args:
        model: gives logits of raw inputs ``(N, …)``; left as it was.
        example: inputs ``(N, …)``, of which the shape and the type are used.
        bits: widths of weights and activations of every layer, or by a layer's name or pattern; None takes what the
            quantize operators in the model say, and 32 bits where there are none.
    """
    with inference(model) as ready, quiet():
        counter = MacCounter(ready)
        x = blank_rows(example, 1).to(device_of(ready))
        with counter:
            ready(x)
        found = weights(ready)
        nonzero = sum(weight.nonzero() for weight in found)
    layers = with_bits(counter.layers, bits)
    parameters = sum(weight.value.numel() for weight in found)
    stored = sum(weight.value.numel() * weight.bits for weight in found)
    return Counts(
        parameters=parameters,
        nonzero=nonzero,
        macs=sum(layer.macs for layer in layers),
        bops=sum(layer.bops for layer in layers),
        weight_bits=stored / max(parameters, 1),
        layers=layers,
    )
