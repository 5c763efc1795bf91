"""Empirical bias correction: the shift that rounded weights cause in each layer's mean output, taken back."""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import Tensor, nn

from bigopt_plugins.compression.quantization._hessian import execution_order
from bigopt_plugins.compression.quantization._wiring import Hook, watch


@torch.no_grad()
def correct_biases(
    reference: nn.Module, quantized: nn.Module, layers: Collection[str], samples: Tensor, *, batch_size: int = 256
) -> dict[str, Tensor]:
    """Moves each layer's bias by how far its mean output has moved; changes ``quantized`` in place.

    Rounding errors of the weights of a channel seldom cancel, so that ``E[ŷ] ≠ E[y]`` and everything behind works on
    shifted inputs. With ``b ← b + E[y] − E[ŷ]`` the means agree again (Nagel et al. 2019, arXiv:1906.04721, section
    4.2, with means over training samples as in appendix D). Layers are corrected in the order of execution, each on
    what the corrected ones before it give, so that shifts that arrive from there are taken back as well.

    Args:
        reference: the float model.
        quantized: the same modules with rounded weights; layers without a bias get one.
        layers: names of the convolutions and linear layers to correct.
        samples: raw inputs ``(N, …)``, from the training split.
        batch_size: rows per forward pass.

    Returns:
        what was added to each bias ``(out,)``, by layer in the order of execution.
    """
    order = list(execution_order(reference, layers, samples[:1]))
    wanted = channel_means(reference, order, samples, batch_size)
    moved: dict[str, Tensor] = {}
    for name in order:
        layer = quantized.get_submodule(name)
        shift = wanted[name] - channel_means(quantized, [name], samples, batch_size)[name]
        weight = layer.weight
        assert isinstance(weight, Tensor)
        shift = shift.to(weight)
        if isinstance(layer.bias, Tensor):
            layer.bias += shift
        else:
            layer.bias = nn.Parameter(shift.clone(), requires_grad=weight.requires_grad)
        moved[name] = shift
    return moved


def channel_means(
    model: nn.Module, layers: Collection[str], samples: Tensor, batch_size: int = 256
) -> dict[str, Tensor]:
    """Mean output of each layer ``(out,)``, float64, over samples, positions and calls.

    Args:
        model: run in evaluation mode.
        layers: names of convolutions ``(N, C, …)`` and linear layers ``(N, …, C)``.
        samples: raw inputs ``(N, …)``.
        batch_size: rows per forward pass.
    """
    sums: dict[str, Tensor] = {}
    counts = dict.fromkeys(layers, 0)

    def keep(name: str) -> Hook:
        layer = model.get_submodule(name)

        def look(_input: Tensor, output: Tensor) -> None:
            channels = output if isinstance(layer, nn.Linear) else output.transpose(1, -1)
            rows = channels.reshape(-1, channels.shape[-1])
            sums[name] = sums.get(name, 0) + rows.sum(0, dtype=torch.float64)
            counts[name] += len(rows)

        return look

    watch(model, {name: keep(name) for name in layers}, samples, batch_size)
    return {name: total / counts[name] for name, total in sums.items()}
