"""Data augmentation of whole batches on the training device."""

from __future__ import annotations

from typing import Any

from torch import nn

from bigopt.vocabulary.batch import Batch
from bigopt.vocabulary.errors import RequestError
from bigopt.vocabulary.part import Fit, Part
from bigopt.vocabulary.run import Run


class Augment(Part):
    """Random crops, flips and erasing of image batches, through kornia.

    Crops of a zero-padded image and horizontal flips follow He et al. 2016 (arXiv:1512.03385), erasing Zhong et al.
    2020 (arXiv:1708.04896). Data that are not images pass unchanged, with a note in the report.

    Args:
        crop: pixels of padding around the image before a crop of its own size is taken; 0 for none.
        flip: whether half of the images are mirrored; null asks the dataset (digits are never mirrored).
        erase: share of the images in which a rectangle is erased, in [0, 1].

    Raises:
        RequestError: an argument is out of range.
    """

    def __init__(self, crop: int = 2, flip: bool | None = None, erase: float = 0.0) -> None:
        problems = []
        if crop < 0:
            problems.append(f"crop: got {crop}, expected 0 pixels or more")
        if not 0 <= erase <= 1:
            problems.append(f"erase: got {erase}, expected a share in [0, 1]")
        if problems:
            raise RequestError(problems)
        self.crop = crop
        self.flip = flip
        self.erase = erase
        self._pipeline: nn.Module | None = None

    def prepare(self, run: Run, fit: Fit) -> None:
        """Builds the augmentation for this dataset's images."""
        import kornia.augmentation as kornia

        schema = run.data.schema
        if schema.kind != "image":
            run.report.note(f"augment does nothing: {run.data.name} holds {schema.kind} data, not images")
            return
        steps: list[Any] = []
        if self.crop:
            size = (schema.shape[1], schema.shape[2])
            steps.append(kornia.RandomCrop(size, padding=self.crop, cropping_mode="slice"))
        if schema.flips if self.flip is None else self.flip:
            steps.append(kornia.RandomHorizontalFlip(p=0.5))
        if self.erase:
            steps.append(kornia.RandomErasing(p=self.erase))
        self._pipeline = nn.Sequential(*steps) if steps else None

    def batch(self, run: Run, batch: Batch) -> Batch:
        """The batch with its images augmented; labels, roles and views stay."""
        if self._pipeline is None:
            return batch
        return batch.with_(x=self._pipeline(batch.x))
