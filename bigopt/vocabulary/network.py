"""The module that is trained, compressed and exported: a net with its input normalisation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from bigopt.vocabulary.data import Data


class Normalize(nn.Module):
    """``(x - mean) / std`` with constants fitted on the training split.

    Args:
        mean: ``(C,)`` for images ``(N, C, H, W)``, ``(F,)`` for features ``(N, F)``.
        std: same shape as mean, all positive.
        spatial: True for images.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, mean: Tensor, std: Tensor, spatial: bool) -> None:
        super().__init__()
        shape = (-1, 1, 1) if spatial else (-1,)
        self.register_buffer("mean", mean.detach().clone().float().reshape(shape))
        self.register_buffer("scale", std.detach().clone().float().reciprocal().reshape(shape))

    def forward(self, x: Tensor) -> Tensor:
        """Normalised input, same shape."""
        return (x - self.mean) * self.scale


class Network(nn.Module):
    """A net behind its input normalisation, giving plain logits.

    Data stay raw (images in [0, 1]) everywhere outside; the exported file therefore takes raw input as well.

    Attributes:
        changes: physical changes since the net was built, in order, as plain JSON (``{"op": "prune", …}``); replaying
            them on a fresh net gives the same shapes. Whoever changes the structure appends here.

    Args:
        net: any module; one whose output has ``logits`` (transformers' models) is unpacked.
        normalize: :class:`Normalize`, or ``nn.Identity()`` for token ids.
        pad_id: token id whose positions are masked, for nets that take an ``attention_mask``; None otherwise.
    """

    def __init__(self, net: nn.Module, normalize: nn.Module | None = None, pad_id: int | None = None) -> None:
        super().__init__()
        self.normalize = normalize if normalize is not None else nn.Identity()
        self.net = net
        self.pad_id = pad_id
        self.changes: list[dict[str, Any]] = []

    @classmethod
    def for_data(cls, net: nn.Module, data: Data) -> Network:
        """Wraps a net for a dataset: its normalisation, and the padding mask where the net takes one."""
        import inspect

        normalize: nn.Module = nn.Identity()
        if data.mean is not None and data.std is not None:
            normalize = Normalize(data.mean, data.std, spatial=data.schema.kind == "image")
        masked = data.schema.kind == "text" and "attention_mask" in inspect.signature(net.forward).parameters
        return cls(net, normalize, data.schema.pad_id if masked else None)

    def forward(self, x: Tensor) -> Tensor:
        """Logits ``(N, K)`` or predictions ``(N, T)`` of raw inputs ``(N, …)``."""
        out: Any
        if self.pad_id is not None:
            out = self.net(x, attention_mask=(x != self.pad_id).to(torch.int64))
        else:
            out = self.net(self.normalize(x))
        logits: Tensor = out.logits if hasattr(out, "logits") else out
        return logits

    def compiled(self) -> Callable[[Tensor], Tensor]:
        """The network compiled for batches of one size; a network that no compiler can see through says how instead."""
        call: Callable[[Tensor], Tensor] = torch.compile(self, dynamic=False)
        return call
