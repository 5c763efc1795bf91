"""Cross-layer equalisation: channels of neighbouring layers rescaled until their weights span the same range.

One scale per tensor wastes most of its steps on channels whose weights are far smaller than the largest. A positive
factor on a channel passes through a ReLU, so it can be moved from a layer into the next one without a change of the
outputs (Nagel et al. 2019, arXiv:1906.04721, section 4.1).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from bigopt_plugins.compression.quantization._chains import Chain, chains_of, weight_of
from bigopt_plugins.compression.quantization._wiring import Hook, Wiring, put, watch

DEAD = 1e-4
"""Channels whose range is under this share of the layer's largest keep it: their factors would blow up the biases."""


class ChannelClip(nn.Module):
    """ReLU with an upper limit per channel, which a ReLU6 becomes when its channels are rescaled.

    Args:
        limit: ``(C, 1, 1)`` for images ``(N, C, H, W)``, ``(C,)`` for features ``(N, C)``.
    """

    limit: Tensor

    def __init__(self, limit: Tensor) -> None:
        super().__init__()
        self.register_buffer("limit", limit)

    def forward(self, x: Tensor) -> Tensor:
        """``min(max(x, 0), limit)``, same shape."""
        return torch.minimum(torch.relu(x), self.limit)


@dataclass
class Equalised:
    """What was done.

    Attributes:
        chains: layers that were equalised together.
        clips: names of the ReLU6 that became a clip per channel.
        left: layers that end a chain for a reason that a user could change, with the reason.
    """

    chains: list[tuple[str, ...]] = field(default_factory=list)
    clips: list[str] = field(default_factory=list)
    left: dict[str, str] = field(default_factory=dict)


@torch.no_grad()
def equalise(
    model: nn.Module, example: Tensor, *, sweeps: int = 100, tolerance: float = 1e-6, ignore: Sequence[str] = ()
) -> Equalised:
    """Gives each channel the same weight range in all layers of its chain; in place, with the same outputs.

    With ranges ``r_k`` of channel i in the layers of a chain (rows of the first, columns of the last, both of a
    depthwise one between them), layer k is multiplied by ``(Π r)^(1/K) / r_k``; for two layers that is eq. 10 of the
    paper. The rows of one chain are the columns of the next, so sweeps go over all chains until nothing moves.
    Fold batch norms first; chains end at everything that has a second reader, such as a residual addition.

    Args:
        model: eager.
        example: raw input ``(N, …)``.
        sweeps: over all chains, at most.
        tolerance: largest ``|log factor|`` that counts as no movement.
        ignore: names of layers that stay as they are.
    """
    wiring = Wiring(model, example)
    result = Equalised()
    chains = [chain for chain in chains_of(model, wiring, result.left) if not set(chain.layers) & set(ignore)]
    for chain in chains:
        result.chains.append(tuple(chain.layers))
        for layer in chain.layers:
            weight = weight_of(model.get_submodule(layer))
            weight.data = weight.data.contiguous()  # views of it are scaled
        for layer, clip in zip(chain.layers, chain.clips, strict=False):
            if clip is not None:
                weight = weight_of(model.get_submodule(layer))
                put(model, clip[0], ChannelClip(weight.new_full((len(weight),), 6.0).reshape(clip[1])))
                result.clips.append(clip[0])
    for _ in range(sweeps):
        if max([_sweep(model, chain) for chain in chains], default=0.0) <= tolerance:
            break
    return result


def drop_unreached(model: nn.Module, clips: Sequence[str], samples: Tensor, *, batch_size: int = 256) -> list[str]:
    """Puts a plain ReLU, which integer kernels compute on the way out, where no sample reaches a clip's limit.

    Args:
        model: eager; changed in place.
        clips: names of :class:`ChannelClip`.
        samples: raw inputs ``(N, …)``, from the training split.
        batch_size: rows per forward pass.

    Returns:
        names of the clips that were replaced.
    """
    reached: set[str] = set()

    def look(name: str) -> Hook:
        limit: Any = model.get_submodule(name).limit

        def hook(x: Tensor, _output: Tensor) -> None:
            if bool((x > limit).any()):
                reached.add(name)

        return hook

    watch(model, {name: look(name) for name in clips}, samples, batch_size)
    unreached = [name for name in clips if name not in reached]
    for name in unreached:
        put(model, name, nn.ReLU())
    return unreached


def _sweep(model: nn.Module, chain: Chain) -> float:
    """Equalises one chain; gives the largest ``|log factor|``."""
    layers = [model.get_submodule(name) for name in chain.layers]
    channels = len(weight_of(layers[0]))
    ranges = torch.stack(
        [row_ranges(layers[0])] + [row_ranges(layer) for layer in layers[1:-1]] + [column_ranges(layers[-1], channels)]
    ).double()
    alive = (ranges > DEAD * ranges.amax(1, keepdim=True)).all(0) & (ranges > 0).all(0)
    mean = ranges.clamp_min(torch.finfo(torch.float64).tiny).log().mean(0).exp()
    factors = torch.where(alive, mean / ranges, 1.0)
    reached = factors.cumprod(0)
    for number, layer in enumerate(layers[:-1]):
        weight = weight_of(layer)
        weight.mul_(_rows(factors[number], weight))
        if isinstance(layer.bias, Tensor):
            layer.bias.mul_(reached[number].to(layer.bias.dtype))
        clip = chain.clips[number]
        if clip is not None:
            limit = model.get_submodule(clip[0]).limit
            assert isinstance(limit, Tensor)
            limit.mul_(reached[number].to(limit.dtype).reshape(limit.shape))
    # what the earlier layers really gained, so that rounding does not change the outputs over many sweeps
    _scale_columns(layers[-1], reached[-2].reciprocal())
    return float(factors.log().abs().max())


def row_ranges(layer: nn.Module) -> Tensor:
    """``max |w|`` of each output channel ``(out,)``."""
    return weight_of(layer).detach().abs().flatten(1).amax(1)


def column_ranges(layer: nn.Module, channels: int) -> Tensor:
    """``max |w|`` over what reads each input channel ``(channels,)``.

    Args:
        layer: a convolution (grouped or not), or a linear layer, which may read each channel in several places.
        channels: number of channels in front of the layer.
    """
    return _by_input(layer, channels).abs().amax((1, 3)).flatten()


def _by_input(layer: nn.Module, channels: int) -> Tensor:
    """The weight as ``(groups, outputs of a group, channels of a group, …)``, one trailing dimension; a view."""
    weight = weight_of(layer).detach()
    groups = int(getattr(layer, "groups", 1))  # type: ignore[arg-type]
    return weight.reshape(groups, len(weight) // groups, channels // groups, -1)


def _scale_columns(layer: nn.Module, factors: Tensor) -> None:
    view = _by_input(layer, len(factors))
    view.mul_(factors.to(view.dtype).reshape(view.shape[0], 1, view.shape[2], 1))


def _rows(factors: Tensor, weight: Tensor) -> Tensor:
    return factors.to(weight.dtype).reshape(-1, *[1] * (weight.ndim - 1))
