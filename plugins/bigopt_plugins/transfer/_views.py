"""Weak and strong random views of whole batches, for methods that compare a model's answers on both."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from bigopt.vocabulary.data import Data
from bigopt.vocabulary.errors import RequestError

View = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Views:
    """Two kinds of random change that leave the class.

    Attributes:
        weak: little noise; ``(N, …)`` to the same shape.
        strong: much noise; ``(N, …)`` to the same shape.
    """

    weak: View
    strong: View


def views_of(data: Data, magnitude: float) -> Views:
    """The views for a dataset's samples; their randomness is PyTorch's global generator's, which every fit seeds.

    Images, through kornia: crops of the padded image, mirrored only where the dataset says that a mirrored image is
    still of its class; strong ones are also turned, scaled and sheared, change their brightness and contrast, and lose
    a rectangle (after RandAugment and Cutout of FixMatch, Sohn et al. 2020, arXiv:2001.07685).
    Features: Gaussian noise in units of each feature's standard deviation; strong ones also lose features to the mean.

    Args:
        data: says what a sample looks like.
        magnitude: of the strong view, in [0, 1].

    Raises:
        RequestError: texts, or a magnitude out of range.
    """
    if not 0 <= magnitude <= 1:
        raise RequestError(f"transfer.magnitude: got {magnitude}, expected a value in [0, 1]")
    if data.schema.kind == "image":
        return _images(data, magnitude)
    if data.schema.kind == "tabular":
        return _features(data, magnitude)
    raise RequestError(f"transfer: {data.name} holds {data.schema.kind} data; views exist for images and features")


def _images(data: Data, magnitude: float) -> Views:
    import kornia.augmentation as kornia

    size = (data.schema.shape[1], data.schema.shape[2])
    padding = max(1, min(size) // 10)
    weak: list[Any] = [kornia.RandomCrop(size, padding=padding, cropping_mode="slice")]
    if data.schema.flips:
        weak.append(kornia.RandomHorizontalFlip(p=0.5))
    spread, shift = 0.8 * magnitude, 0.2 * magnitude
    strong: list[Any] = [
        *weak[1:],
        kornia.RandomAffine(
            degrees=30 * magnitude,
            translate=(shift, shift),
            scale=(1 - 0.3 * magnitude, 1 + 0.3 * magnitude),
            shear=20 * magnitude,
            p=1.0,
        ),
        kornia.RandomBrightness((1 - spread / 2, 1 + spread / 2), p=1.0),
        kornia.RandomContrast((1 - spread, 1 + spread), p=1.0),
        kornia.RandomErasing(scale=(0.02, 0.02 + 0.4 * magnitude), p=magnitude**0.5),
    ]
    return Views(nn.Sequential(*weak), nn.Sequential(*strong))


def _features(data: Data, magnitude: float) -> Views:
    features = data.schema.shape
    mean = torch.zeros(features) if data.mean is None else data.mean
    std = torch.ones(features) if data.std is None else data.std

    def noisy(x: Tensor, share: float) -> Tensor:
        return x + share * std.to(x) * torch.randn_like(x)

    def strong(x: Tensor) -> Tensor:
        lost = torch.rand_like(x) < 0.4 * magnitude
        return torch.where(lost, mean.to(x).expand_as(x), noisy(x, 0.6 * magnitude))

    return Views(lambda x: noisy(x, 0.1 * magnitude), strong)
