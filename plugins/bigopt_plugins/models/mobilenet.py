"""MobileNetV2 for small images."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn

from bigopt_plugins.models._common import ConvBnRelu, above, at_least, counts, initialise, refuse, scaled

STAGES = ((16, 1), (24, 2), (32, 2), (64, 1))
"""Channels and first stride of each stage: the paper's first ones, with strides for small images."""


class InvertedResidual(nn.Module):
    """1×1 expansion, depthwise 3×3, linear 1×1 projection; added to its input where the shapes agree.

    Args:
        inputs: input channels.
        outputs: output channels.
        stride: stride of the depthwise convolution.
        expand: factor on the channels inside; 1 leaves the expansion out.
    """

    def __init__(self, inputs: int, outputs: int, stride: int, expand: int) -> None:
        super().__init__()
        inner = inputs * expand
        self.body = nn.Sequential()
        if expand > 1:
            self.body.add_module("expand", ConvBnRelu(inputs, inner, 1, activation=nn.ReLU6))
        depthwise = ConvBnRelu(inner, inner, stride=stride, groups=inner, activation=nn.ReLU6)
        self.body.add_module("depthwise", depthwise)
        self.body.add_module("project", ConvBnRelu(inner, outputs, 1, activation=None))
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        """``(N, in, H, W)`` to ``(N, out, H / stride, W / stride)``."""
        out: Tensor = self.body(x)
        return x + out if self.residual else out


class MobileNet(nn.Module):
    """Inverted residuals with depthwise convolutions (MobileNetV2, Sandler et al. 2018), sized for small images.

    Blocks are ``blocks.0`` …, with ``body.expand``, ``body.depthwise`` and ``body.project``.

    Args:
        in_channels: channels of the images, from the data.
        num_classes: classes or regression targets, from the data.
        depth: blocks in each stage, of at most four (16-24-32-64 channels).
        width: factor on all channels, which are then rounded to multiples of 8.
        expand: factor on the channels inside a block (the first block has none).

    Raises:
        RequestError: an argument is out of range.
    """

    kinds: ClassVar[tuple[str, ...]] = ("image",)
    min_size: ClassVar[int] = 4
    space: ClassVar[dict[str, str]] = {"width": "choice(0.25,0.5,1.0)", "expand": "choice(3,6)"}

    def __init__(
        self,
        *,
        in_channels: int,
        num_classes: int,
        depth: tuple[int, ...] = (1, 2, 2, 2),
        width: float = 1.0,
        expand: int = 6,
    ) -> None:
        super().__init__()
        refuse(
            at_least(1, in_channels=in_channels, num_classes=num_classes, expand=expand),
            counts("depth", depth),
            [f"depth: got {list(depth)}, expected at most {len(STAGES)} stages"] if len(depth) > len(STAGES) else [],
            above(0, width=width),
        )
        inputs = scaled(32, width, 8)
        self.stem = ConvBnRelu(in_channels, inputs, activation=nn.ReLU6)
        self.blocks = nn.Sequential()
        for stage, (repeats, (channels, first_stride)) in enumerate(zip(depth, STAGES, strict=False)):
            outputs = scaled(channels, width, 8)
            for block in range(repeats):
                stride = first_stride if block == 0 else 1
                self.blocks.append(InvertedResidual(inputs, outputs, stride, expand if stage else 1))
                inputs = outputs
        last = scaled(256, width, 8)
        self.last = ConvBnRelu(inputs, last, 1, activation=nn.ReLU6)
        self.head = nn.Linear(last, num_classes)
        initialise(self, self.head)

    def forward(self, x: Tensor) -> Tensor:
        """Logits ``(N, K)`` of images ``(N, C, H, W)``."""
        logits: Tensor = self.head(self.last(self.blocks(self.stem(x))).mean((2, 3)))
        return logits
