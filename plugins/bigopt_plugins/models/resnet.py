"""Residual nets for small images."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn

from bigopt_plugins.models._common import ConvBnRelu, at_least, counts, initialise, refuse

EXPANSION = 4
"""Output channels of a bottleneck block over its inner ones."""


class ResidualBlock(nn.Module):
    """``relu(body(x) + shortcut(x))`` of two 3×3 convolutions, or of a 1×1-3×3-1×1 bottleneck.

    Args:
        inputs: input channels.
        channels: channels of the 3×3 convolutions; a bottleneck gives four times as many.
        stride: stride of the first 3×3 convolution and of the shortcut.
        bottleneck: which of the two.
    """

    def __init__(self, inputs: int, channels: int, stride: int, bottleneck: bool) -> None:
        super().__init__()
        outputs = channels * EXPANSION if bottleneck else channels
        if bottleneck:
            self.body = nn.Sequential(
                ConvBnRelu(inputs, channels, 1),
                ConvBnRelu(channels, channels, stride=stride),
                ConvBnRelu(channels, outputs, 1, activation=None),
            )
        else:
            self.body = nn.Sequential(
                ConvBnRelu(inputs, channels, stride=stride), ConvBnRelu(channels, outputs, activation=None)
            )
        same = inputs == outputs and stride == 1
        self.shortcut = nn.Identity() if same else ConvBnRelu(inputs, outputs, 1, stride=stride, activation=None)
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """``(N, in, H, W)`` to ``(N, out, H / stride, W / stride)``."""
        out: Tensor = self.relu(self.body(x) + self.shortcut(x))
        return out


class ResNet(nn.Module):
    """A residual net as for CIFAR (He et al. 2016): a 3×3 stem, stages that double channels and halve the image.

    The default is 32-64-128 with one block a stage; ``depth=[3,3,3] width=16`` is the paper's ResNet-20 with
    projections. Blocks are ``stages.<stage>.<block>``. Channels under 32 gain little from int8 arithmetic.

    Args:
        in_channels: channels of the images, from the data.
        num_classes: classes or regression targets, from the data.
        depth: blocks in each stage.
        width: channels of the first stage.
        channels: channels of every stage; null doubles the width from stage to stage.
        bottleneck: 1×1-3×3-1×1 blocks with four times the output channels.

    Raises:
        RequestError: an argument is out of range.
    """

    kinds: ClassVar[tuple[str, ...]] = ("image",)
    space: ClassVar[dict[str, str]] = {"depth": "choice([1,1,1],[2,2,2],[3,3,3])"}
    min_size: ClassVar[int] = 4

    def __init__(
        self,
        *,
        in_channels: int,
        num_classes: int,
        depth: tuple[int, ...] = (1, 1, 1),
        width: int = 32,
        channels: tuple[int, ...] | None = None,
        bottleneck: bool = False,
    ) -> None:
        super().__init__()
        refuse(at_least(1, in_channels=in_channels, num_classes=num_classes, width=width), counts("depth", depth))
        widths = tuple(width * 2**stage for stage in range(len(depth))) if channels is None else tuple(channels)
        refuse(counts("channels", widths))
        if len(widths) != len(depth):
            refuse([f"channels: got {len(widths)} stages, expected {len(depth)}, as depth has"])
        inputs = widths[0]
        self.stem = ConvBnRelu(in_channels, inputs)
        self.stages = nn.Sequential()
        for number, (blocks, outputs) in enumerate(zip(depth, widths, strict=True)):
            stage = nn.Sequential()
            for block in range(blocks):
                stride = 2 if number and not block else 1
                stage.append(ResidualBlock(inputs, outputs, stride, bottleneck))
                inputs = outputs * EXPANSION if bottleneck else outputs
            self.stages.append(stage)
        self.head = nn.Linear(inputs, num_classes)
        initialise(self, self.head)

    def forward(self, x: Tensor) -> Tensor:
        """Logits ``(N, K)`` of images ``(N, C, H, W)``."""
        logits: Tensor = self.head(self.stages(self.stem(x)).mean((2, 3)))
        return logits
