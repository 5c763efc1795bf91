"""Small nets that the tests of measuring share."""

from __future__ import annotations

import torch
from torch import Tensor, nn

IMAGE = torch.zeros(1, 1, 8, 8)


class Residual(nn.Module):
    """Convolution and batch norm around an addition, with numbers in every buffer that matter to the result."""

    def __init__(self, channels: int = 4) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, channels, 3, padding=1)
        self.norm = nn.BatchNorm2d(channels)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)
        self.head = nn.Linear(channels, 3)
        self.dropout = nn.Dropout(0.5)
        for value in (self.norm.running_mean, self.norm.running_var, self.norm.weight, self.norm.bias):
            nn.init.uniform_(value, 0.5, 1.5)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.norm(self.first(x)))
        x = torch.relu(x + self.second(x))
        return self.head(self.dropout(x.mean((2, 3))))


def plain() -> nn.Sequential:
    """A sequential net whose every layer torchao's own quantizer handles."""
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(128, 3),
    )  # fmt: skip


def quantize(model: nn.Module, samples: Tensor) -> nn.Module:
    """8-bit integers through PT2E, with a quantizer that is not bigopt's."""
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e
    from torchao.quantization.pt2e.quantizer import x86_inductor_quantizer as x86

    shapes = ({0: torch.export.Dim("batch", min=1)},)
    graph = torch.export.export(model.eval(), (samples[:3],), dynamic_shapes=shapes, strict=False).module()
    quantizer = x86.X86InductorQuantizer().set_global(
        x86.get_default_x86_inductor_quantization_config(reduce_range=True)
    )
    prepared = prepare_pt2e(graph, quantizer)
    prepared(samples)
    return convert_pt2e(prepared)
