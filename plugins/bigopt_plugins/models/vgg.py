"""VGG for small images."""

from __future__ import annotations

from typing import ClassVar, Literal

from torch import Tensor, nn

from bigopt_plugins.models._common import above, at_least, choice, counts, initialise, refuse, scaled, share

CHANNELS = (64, 128, 256, 512, 512)
BLOCKS = {11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}
"""Convolutions in each of the five blocks, by depth."""


class VGG(nn.Module):
    """Five blocks of 3×3 convolutions (Simonyan and Zisserman 2015), averaged into a linear head.

    Layers are named as in the paper: ``features.conv1_1`` … ``features.conv5_3``. Small images are not pooled to less
    than 2×2 before the end of the last block: a 3×3 convolution on one pixel would see little but its padding.
    ``hidden=[4096,4096] width=1`` gives the paper's classifier.

    Args:
        in_channels: channels of the images, from the data.
        image_size: height and width of the images, from the data.
        num_classes: classes or regression targets, from the data.
        depth: number of weight layers in the paper's count.
        batch_norm: batch norm behind every convolution.
        width: factor on all channels (64-128-256-512-512).
        hidden: units of fully connected layers before the last one.
        dropout: share of activations dropped behind each of those.

    Raises:
        RequestError: an argument is out of range.
    """

    kinds: ClassVar[tuple[str, ...]] = ("image",)
    space: ClassVar[dict[str, str]] = {
        "depth": "choice(11,13,16)",
        "width": "choice(0.125,0.25,0.5)",
        "dropout": "choice(0.0,0.25,0.5)",
    }
    min_size: ClassVar[int] = 4

    def __init__(
        self,
        *,
        in_channels: int,
        image_size: int,
        num_classes: int,
        depth: Literal[11, 13, 16, 19] = 16,
        batch_norm: bool = True,
        width: float = 0.25,
        hidden: tuple[int, ...] = (),
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        refuse(
            at_least(1, in_channels=in_channels, num_classes=num_classes),
            at_least(self.min_size, image_size=image_size),
            choice("depth", depth, BLOCKS),
            above(0, width=width),
            counts("hidden", hidden, empty=True),
            share(dropout=dropout),
        )
        self.features = nn.Sequential()
        inputs, side = in_channels, image_size
        for block, (repeats, channels) in enumerate(zip(BLOCKS[depth], CHANNELS, strict=True), 1):
            for layer in range(1, repeats + 1):
                outputs = scaled(channels, width)
                self._add_layer(f"{block}_{layer}", inputs, outputs, batch_norm)
                inputs = outputs
            if side >= 4 or (block == len(CHANNELS) and side > 1):
                self.features.add_module(f"pool{block}", nn.MaxPool2d(2))
                side //= 2
        self.classifier = nn.Sequential()
        for number, units in enumerate(hidden, 1):
            self.classifier.add_module(f"fc{number}", nn.Linear(inputs, units))
            self.classifier.add_module(f"relu{number}", nn.ReLU())
            self.classifier.add_module(f"dropout{number}", nn.Dropout(dropout))
            inputs = units
        head = nn.Linear(inputs, num_classes)
        self.classifier.add_module("head", head)
        initialise(self, head)

    def _add_layer(self, name: str, inputs: int, outputs: int, batch_norm: bool) -> None:
        self.features.add_module(f"conv{name}", nn.Conv2d(inputs, outputs, 3, padding=1, bias=not batch_norm))
        if batch_norm:
            self.features.add_module(f"bn{name}", nn.BatchNorm2d(outputs))
        self.features.add_module(f"relu{name}", nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        """Logits ``(N, K)`` of images ``(N, C, H, W)``."""
        logits: Tensor = self.classifier(self.features(x).mean((2, 3)))
        return logits
