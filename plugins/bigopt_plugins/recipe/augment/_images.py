"""Random changes of images, through kornia, whole batches at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import nn

GREY = (
    [("auto_contrast", 0, 1)],
    [("equalize", 0, 1)],
    [("rotate", -30.0, 30.0)],
    [("brightness", 0.2, 1.8)],
    [("contrast", 0.2, 1.8)],
    [("sharpness", 0.1, 1.9)],
    [("shear_x", -0.3, 0.3)],
    [("shear_y", -0.3, 0.3)],
    [("translate_x", -0.2, 0.2)],
    [("translate_y", -0.2, 0.2)],
)
"""RandAugment's operations that need no colours, with the ranges that its magnitude spans."""


@dataclass(frozen=True)
class Changes:
    """Which changes, and how strong.

    Attributes:
        crop: pixels of padding around the image before a crop of its own size; 0 for none.
        flip: whether half of the images are mirrored.
        scale: images are scaled by a factor in ``[1 - scale, 1 + scale]``.
        rotate: largest angle in degrees.
        shear: largest shear in degrees.
        erase: share of the images that lose a rectangle.
        randaugment: number of RandAugment's operations for each batch.
        magnitude: of these operations, 0 to 30.
    """

    crop: int = 0
    flip: bool = False
    scale: float = 0.0
    rotate: float = 0.0
    shear: float = 0.0
    erase: float = 0.0
    randaugment: int = 0
    magnitude: int = 9


def pipeline(changes: Changes, shape: tuple[int, ...]) -> nn.Module | None:
    """What changes images ``(N, C, H, W)`` in [0, 1]; None for nothing.

    Args:
        changes: which.
        shape: of one image, ``(C, H, W)``.
    """
    import kornia.augmentation as kornia
    from kornia.augmentation.auto import RandAugment

    steps: list[Any] = []
    if changes.randaugment:
        policy: Any = [list(one) for one in GREY] if shape[0] != 3 else None
        steps.append(RandAugment(changes.randaugment, changes.magnitude, policy=policy))
    if changes.scale or changes.rotate or changes.shear:
        scale = (1 - changes.scale, 1 + changes.scale) if changes.scale else None
        shear = changes.shear or None
        steps.append(kornia.RandomAffine(changes.rotate, scale=scale, shear=shear, p=1.0))
    if changes.crop:
        steps.append(kornia.RandomCrop((shape[1], shape[2]), padding=changes.crop, cropping_mode="slice"))
    if changes.flip:
        steps.append(kornia.RandomHorizontalFlip(p=0.5))
    if changes.erase:
        steps.append(kornia.RandomErasing(p=changes.erase))
    return nn.Sequential(*steps) if steps else None
