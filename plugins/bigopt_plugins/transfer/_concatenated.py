"""A net that classifies by the outputs of several of its layers, side by side."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from bigopt.vocabulary.errors import RequestError
from bigopt.vocabulary.patterns import unknown
from bigopt.vocabulary.run import recording

Head = Literal["linear", "mlp", "conv"]


class Concatenated(nn.Module):
    """Outputs of named layers, pooled and concatenated, into a head.

    Maps ``(N, C, H, W)`` are averaged to ``side × side`` cells, tokens ``(N, L, H)`` over the tokens that are no
    padding; vectors are taken as they are. For a convolutional head maps stay maps of ``side × side``.

    Args:
        net: gives the outputs; its own last layer is not used any more.
        layers: names of its modules.
        side: cells along each side of a map.
        flat: whether maps are flattened.
        head: takes the features ``(N, F)``, or maps ``(N, C, side, side)``.
    """

    def __init__(self, net: nn.Module, layers: Sequence[str], side: int, flat: bool, head: nn.Module) -> None:
        super().__init__()
        self.net = net
        self.layers = tuple(layers)
        self.side = side
        self.flat = flat
        self.head = head

    def forward(self, x: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """Logits ``(N, K)`` of what the net takes."""
        with recording(self.net, self.layers) as seen:
            if attention_mask is None:
                self.net(x)
            else:
                self.net(x, attention_mask=attention_mask)
        parts = [part for name in self.layers for part in self._parts(seen[name], attention_mask)]
        logits: Tensor = self.head(torch.cat(parts, 1))
        return logits

    def _parts(self, out: Tensor, mask: Tensor | None) -> list[Tensor]:
        """What a layer adds to the features.

        Cells come one after another, each with all channels: were they flattened, the tracing of channels could not
        tell which features belong to one.
        """
        if out.ndim == 4:
            if not self.flat:
                return [averaged(out, self.side)]
            rows, columns = (windows(int(size), self.side) for size in out.shape[2:])
            return [out[:, :, top:bottom, left:right].mean((2, 3)) for top, bottom in rows for left, right in columns]
        if out.ndim == 3:
            if mask is None:
                return [out.mean(1)]
            weight = mask.to(out.dtype).unsqueeze(2)
            return [(out * weight).sum(1) / weight.sum(1).clamp_min(1)]
        return [out]


def windows(size: int, cells: int) -> list[tuple[int, int]]:
    """Start and end of each cell along a side, as adaptive average pooling has them; they may overlap."""
    return [(cell * size // cells, -(-(cell + 1) * size // cells)) for cell in range(cells)]


def averaged(x: Tensor, side: int) -> Tensor:
    """Means over ``side × side`` cells of maps ``(N, C, H, W)``.

    Where windows differ in size, as products with constant matrices, which every exporter knows.
    """
    height, width = int(x.shape[2]), int(x.shape[3])
    if height % side == 0 and width % side == 0:
        return functional.avg_pool2d(x, (height // side, width // side))
    return _shares(height, side, x) @ x @ _shares(width, side, x).T


def _shares(size: int, cells: int, like: Tensor) -> Tensor:
    """``(cells, size)``: the share of each position in each cell's mean."""
    rows = [
        [1 / (end - start) if start <= at < end else 0.0 for at in range(size)] for start, end in windows(size, cells)
    ]
    return torch.tensor(rows, dtype=like.dtype, device=like.device)


def make_head(kind: Head, inputs: int, hidden: Sequence[int], classes: int) -> nn.Module:
    """A head for concatenated features.

    Args:
        kind: ``linear``; ``mlp`` with hidden layers; ``conv``: batch norm, a 3×3 convolution with ReLU, and a linear
            layer on its mean.
        inputs: features, or channels of the maps.
        hidden: units of the hidden layers (mlp), channels of the convolution (conv).
        classes: outputs.
    """
    if kind == "linear":
        return nn.Linear(inputs, classes)
    if kind == "conv":
        convolution = nn.Conv2d(inputs, hidden[0], 3, padding=1, bias=False)
        layers = [nn.BatchNorm2d(inputs), convolution, nn.BatchNorm2d(hidden[0]), nn.ReLU()]
        return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(hidden[0], classes))
    sizes = [inputs, *hidden]
    pairs = [(nn.Linear(a, b), nn.ReLU()) for a, b in zip(sizes, sizes[1:], strict=False)]
    return nn.Sequential(*(layer for pair in pairs for layer in pair), nn.Linear(sizes[-1], classes))


def matching(net: nn.Module, patterns: Sequence[str]) -> list[str]:
    """Names of the modules that fit any of the patterns, in the net's order.

    ``*`` and ``?`` stand for characters of one part of a dotted name: ``stages.*`` are the stages, not what is in them.

    Raises:
        RequestError: a pattern that fits nothing; the nearest names are listed.
    """
    names = [name for name, _ in net.named_modules() if name]
    if problems := unknown("transfer.layers", patterns, names, "layer of the model", _fits):
        raise RequestError(problems)
    return [name for name in names if _fits(name, patterns)]


def _fits(name: str, patterns: Iterable[str]) -> bool:
    parts = name.split(".")
    wanted = (pattern.removeprefix("net.").split(".") for pattern in patterns)
    return any(len(parts) == len(one) and all(map(fnmatchcase, parts, one)) for one in wanted)
