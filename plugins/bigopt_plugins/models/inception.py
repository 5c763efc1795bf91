"""A small GoogLeNet: modules of concatenated branches."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from bigopt_plugins.models._common import ConvBnRelu, at_least, initialise, refuse


class InceptionBlock(nn.Module):
    """Four branches side by side, concatenated; keeps the number of channels, so that a whole block can be left out.

    Args:
        channels: input and output channels: a quarter comes from ``branch1``, half from ``branch3``, an eighth each
            from ``branch5`` and ``branch_pool``.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        quarter, half, eighth = channels // 4, channels // 2, channels // 8
        self.branch1 = ConvBnRelu(channels, quarter, 1)
        self.branch3 = nn.Sequential(ConvBnRelu(channels, quarter, 1), ConvBnRelu(quarter, half, 3))
        self.branch5 = nn.Sequential(ConvBnRelu(channels, eighth, 1), ConvBnRelu(eighth, eighth, 5))
        self.branch_pool = nn.Sequential(nn.MaxPool2d(3, 1, padding=1), ConvBnRelu(channels, eighth, 1))

    def forward(self, x: Tensor) -> Tensor:
        """``(N, C, H, W)`` to ``(N, C, H, W)``."""
        return torch.cat([self.branch1(x), self.branch3(x), self.branch5(x), self.branch_pool(x)], 1)


class Inception(nn.Module):
    """A GoogLeNet-like net of concatenating branches (Szegedy et al. 2015), with batch norm.

    Blocks are ``blocks.0`` …, their branches ``branch1``, ``branch3``, ``branch5`` and ``branch_pool``. The image is
    halved before the first block and before the middle one.

    Args:
        in_channels: channels of the images, from the data.
        image_size: height and width of the images, from the data.
        num_classes: classes or regression targets, from the data.
        modules: number of inception blocks.
        width: channels between blocks, a multiple of 8.

    Raises:
        RequestError: an argument is out of range.
    """

    kinds: ClassVar[tuple[str, ...]] = ("image",)
    min_size: ClassVar[int] = 4
    space: ClassVar[dict[str, str]] = {"modules": "choice(2,4)", "width": "choice(32,64)"}

    def __init__(
        self, *, in_channels: int, image_size: int, num_classes: int, modules: int = 4, width: int = 64
    ) -> None:
        super().__init__()
        refuse(
            at_least(1, in_channels=in_channels, num_classes=num_classes, modules=modules),
            at_least(self.min_size, image_size=image_size),
            [f"width: got {width!r}, expected a positive multiple of 8"] if width < 8 or width % 8 else [],
        )
        self.stem = ConvBnRelu(in_channels, width)
        self.pool_stem = nn.MaxPool2d(2)
        self.blocks = nn.ModuleList(InceptionBlock(width) for _ in range(modules))
        self.pool_middle = nn.MaxPool2d(2)
        self.head = nn.Linear(width, num_classes)
        initialise(self, self.head)

    def forward(self, x: Tensor) -> Tensor:
        """Logits ``(N, K)`` of images ``(N, C, H, W)``."""
        x = self.pool_stem(self.stem(x))
        for number, block in enumerate(self.blocks):
            if number == len(self.blocks) // 2:
                x = self.pool_middle(x)
            x = block(x)
        logits: Tensor = self.head(x.mean((2, 3)))
        return logits
