"""Mean and standard deviation of the training inputs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from bigopt.vocabulary.data import Kind, Split

_CHUNK = 4096
_STREAMED = 2048


def fit_normalization(split: Split | Sequence[Split], kind: Kind) -> tuple[Tensor | None, Tensor | None]:
    """Mean and standard deviation per channel (image) or feature (tabular), of training inputs only.

    A channel that never changes gets the deviation 1. Of a split that streams from disk, evenly spaced samples are
    read.

    Args:
        split: the training split, or several (labelled and unlabelled training samples).
        kind: text has neither.

    Returns:
        two float32 tensors ``(C,)`` or ``(F,)``; None, None for text.
    """
    if kind == "text":
        return None, None
    count, total, squares = 0, torch.zeros(()).double(), torch.zeros(()).double()
    splits = [split] if not isinstance(split, Sequence) else split
    # Two passes: the plain sum of squares loses all digits of a feature whose mean is large beside its deviation.
    centre = torch.zeros(()).double()
    for deviations in (False, True):
        count = 0
        for rows in _chunks(splits):
            values = rows.double().movedim(1, 0).flatten(1) if rows.ndim > 1 else rows.double().unsqueeze(0)
            count += values.shape[1]
            if deviations:
                squares = squares + (values - centre.unsqueeze(1)).square().sum(1)
            else:
                total = total + values.sum(1)
        centre = total / max(count, 1)
    std = (squares / max(count, 1)).sqrt()
    mean = centre.float()
    # Rounding leaves a constant column a tiny deviation, by which it must not be divided.
    constant = std <= 1e-7 * centre.abs().clamp(min=1e-12)
    return mean, torch.where(constant, torch.ones_like(std), std).float()


def _chunks(splits: Sequence[Split]) -> Iterator[Tensor]:
    """Inputs in pieces; read again on each pass, since all of them as floats may not fit."""
    for split in splits:
        index = torch.arange(len(split))
        if not split.in_memory and len(split) > _STREAMED:
            index = torch.linspace(0, len(split) - 1, _STREAMED).long()
        for part in index.split(_CHUNK):
            yield split.take(part)
