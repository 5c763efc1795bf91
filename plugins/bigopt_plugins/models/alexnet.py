"""AlexNet for small images."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn

from bigopt_plugins.models._common import above, at_least, initialise, refuse, scaled, share

LARGE = 64
"""From this image size on, the first convolution is the paper's: 11×11 with stride 4."""


class AlexNet(nn.Module):
    """Five convolutions and three fully connected layers (Krizhevsky et al. 2012), with a first layer for small images.

    Layers are named as in the paper: ``features.conv1`` … ``features.conv5``, ``classifier.fc6`` … ``classifier.fc8``.
    Images under 64 pixels meet a 5×5 convolution without stride instead of 11×11 with stride 4, and poolings are
    padded, so that 8×8 images still work. No local response normalisation.

    Args:
        in_channels: channels of the images, from the data.
        image_size: height and width of the images, at least 8, from the data.
        num_classes: classes or regression targets, from the data.
        width: factor on all channels (64-192-384-256-256) and hidden units (4096).
        dropout: share of activations dropped before each hidden fully connected layer in training.

    Raises:
        RequestError: an argument is out of range.
    """

    kinds: ClassVar[tuple[str, ...]] = ("image",)
    space: ClassVar[dict[str, str]] = {"width": "choice(0.125,0.25,0.5)", "dropout": "choice(0.0,0.25,0.5)"}
    min_size: ClassVar[int] = 8

    def __init__(
        self, *, in_channels: int, image_size: int, num_classes: int, width: float = 0.25, dropout: float = 0.5
    ) -> None:
        super().__init__()
        refuse(
            at_least(1, in_channels=in_channels, num_classes=num_classes),
            at_least(self.min_size, image_size=image_size),
            above(0, width=width),
            share(dropout=dropout),
        )
        first = (11, 4, 5) if image_size >= LARGE else (5, 1, 2)
        layers = [(64, *first), (192, 5, 1, 2), (384, 3, 1, 1), (256, 3, 1, 1), (256, 3, 1, 1)]
        self.features = nn.Sequential()
        channels, side = in_channels, image_size
        for number, (outputs, kernel, stride, padding) in enumerate(layers, 1):
            conv = nn.Conv2d(channels, scaled(outputs, width), kernel, stride, padding)
            self.features.add_module(f"conv{number}", conv)
            self.features.add_module(f"relu{number}", nn.ReLU())
            channels, side = conv.out_channels, (side + 2 * padding - kernel) // stride + 1
            if number in (1, 2, 5):
                self.features.add_module(f"pool{number}", nn.MaxPool2d(3, 2, padding=1))
                side = (side - 1) // 2 + 1
        hidden = scaled(4096, width)
        self.classifier = nn.Sequential()
        for number, inputs in ((6, channels * side * side), (7, hidden)):
            self.classifier.add_module(f"dropout{number}", nn.Dropout(dropout))
            self.classifier.add_module(f"fc{number}", nn.Linear(inputs, hidden))
            self.classifier.add_module(f"relu{number}", nn.ReLU())
        head = nn.Linear(hidden, num_classes)
        self.classifier.add_module("fc8", head)
        initialise(self, head)

    def forward(self, x: Tensor) -> Tensor:
        """Logits ``(N, K)`` of images ``(N, C, S, S)``."""
        logits: Tensor = self.classifier(self.features(x).flatten(1))
        return logits
