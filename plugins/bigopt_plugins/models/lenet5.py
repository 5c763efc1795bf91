"""LeNet-5 in the variant of Caffe."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn

from bigopt_plugins.models._common import at_least, initialise, refuse

UNPADDED_FROM = 16
"""Smallest image that leaves a pixel after two unpadded 5×5 convolutions with pooling."""


class LeNet5(nn.Module):
    """LeNet-5-Caffe, 20-50-800-500: the net of the sparsification papers (431,080 parameters at 28×28, 10 classes).

    Two 5×5 convolutions with max pooling and two fully connected layers (LeCun et al. 1998), with ReLU as those papers
    train it. Images under 16 pixels get padded convolutions, so that something is left of them.

    Args:
        in_channels: channels of the images, from the data.
        image_size: height and width of the images, at least 8, from the data.
        num_classes: classes or regression targets, from the data.

    Raises:
        RequestError: an argument is out of range.
    """

    kinds: ClassVar[tuple[str, ...]] = ("image",)
    min_size: ClassVar[int] = 8

    def __init__(self, *, in_channels: int, image_size: int, num_classes: int) -> None:
        super().__init__()
        refuse(
            at_least(1, in_channels=in_channels, num_classes=num_classes),
            at_least(self.min_size, image_size=image_size),
        )
        padding = 0 if image_size >= UNPADDED_FROM else 2
        side = image_size
        for _ in range(2):
            side = (side + 2 * padding - 4) // 2
        self.conv1 = nn.Conv2d(in_channels, 20, 5, padding=padding)
        self.relu1 = nn.ReLU()
        self.pool1 = nn.MaxPool2d(2)
        self.conv2 = nn.Conv2d(20, 50, 5, padding=padding)
        self.relu2 = nn.ReLU()
        self.pool2 = nn.MaxPool2d(2)
        self.fc1 = nn.Linear(50 * side * side, 500)
        self.relu3 = nn.ReLU()
        self.fc2 = nn.Linear(500, num_classes)
        initialise(self, self.fc2)

    def forward(self, x: Tensor) -> Tensor:
        """Logits ``(N, K)`` of images ``(N, C, S, S)``."""
        x = self.pool1(self.relu1(self.conv1(x)))
        x = self.pool2(self.relu2(self.conv2(x)))
        logits: Tensor = self.fc2(self.relu3(self.fc1(x.flatten(1))))
        return logits
