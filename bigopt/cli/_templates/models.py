"""A model plugin: anything that returns an ``nn.Module``; its typed signature is its configuration."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn

from bigopt import RequestError


class MyPlugin(nn.Module):
    """One hidden layer.

    ``in_features`` and ``num_classes`` come from the data, as would ``in_channels``, ``image_size`` and ``vocab_size``.

    Args:
        in_features: values of one sample, from the data.
        num_classes: classes or regression targets, from the data.
        hidden: units of the hidden layer.

    Raises:
        RequestError: an argument is out of range.
    """

    kinds: ClassVar[tuple[str, ...]] = ("image", "tabular")

    def __init__(self, *, in_features: int, num_classes: int, hidden: int = 64) -> None:
        super().__init__()
        if hidden < 1:
            raise RequestError(f"hidden: got {hidden}, expected at least 1")
        self.layers = nn.Sequential(
            nn.Flatten(), nn.Linear(in_features, hidden), nn.ReLU(), nn.Linear(hidden, num_classes)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Logits ``(N, K)`` of samples ``(N, …)``."""
        logits: Tensor = self.layers(x)
        return logits
