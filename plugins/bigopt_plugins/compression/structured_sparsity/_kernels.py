"""Kernels whose outer rings vanished, made smaller."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def croppable(layer: nn.Conv2d) -> tuple[int, int]:
    """Rings of zeros, in height and width, that can go from both sides without changing the output.

    A ring can go only if the padding shrinks with it, so that every filter still looks at the same place.
    """
    if layer.padding_mode != "zeros" or isinstance(layer.padding, str):
        return 0, 0
    alive = layer.weight.detach().abs().amax((0, 1)) > 0
    if not bool(alive.any()):
        return 0, 0
    rings = []
    for axis in (0, 1):
        lines = alive.any(1 - axis).nonzero().flatten()
        size = alive.shape[axis]
        dead = min(int(lines[0]), size - 1 - int(lines[-1]))
        rings.append(min(dead, layer.padding[axis] // layer.dilation[axis]))
    return rings[0], rings[1]


def crop(layer: nn.Conv2d, rings: tuple[int, int]) -> None:
    """Takes these rings off the kernel and the padding that they needed, in place."""
    assert not isinstance(layer.padding, str)
    height, width = layer.kernel_size
    with torch.no_grad():
        inner: Tensor = layer.weight[:, :, rings[0] : height - rings[0], rings[1] : width - rings[1]].contiguous()
    layer.weight = nn.Parameter(inner.clone(), requires_grad=layer.weight.requires_grad)
    layer.kernel_size = (height - 2 * rings[0], width - 2 * rings[1])
    layer.padding = (
        layer.padding[0] - rings[0] * layer.dilation[0],
        layer.padding[1] - rings[1] * layer.dilation[1],
    )
    twice = [layer.padding[1]] * 2 + [layer.padding[0]] * 2
    layer._reversed_padding_repeated_twice = twice
