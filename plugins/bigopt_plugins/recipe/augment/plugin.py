"""Data augmentation of whole batches on the training device."""

from __future__ import annotations

import torch
from torch import nn

from bigopt.vocabulary.batch import Batch
from bigopt.vocabulary.errors import RequestError
from bigopt.vocabulary.part import Fit, Part
from bigopt.vocabulary.run import Run
from bigopt_plugins.recipe.augment._copies import Copies
from bigopt_plugins.recipe.augment._images import Changes, pipeline
from bigopt_plugins.recipe.augment._mixing import cutmix, mixup
from bigopt_plugins.recipe.augment._tokens import drop_tokens

TOKEN_DROPOUT = 0.1
"""Share of tokens that texts lose unless told otherwise."""


class Augment(Part):
    """Random changes of training batches: images through kornia, mixed samples, texts with holes.

    What is null is chosen for the dataset: crops of an image padded by an eighth (He et al. 2016, arXiv:1512.03385),
    flips where a mirrored image is still of its class (digits are not), and one token in ten that texts lose. Tabular
    data pass unchanged unless ``mixup`` is set. Labels are mixed like their samples; the validation split never is.

    Args:
        crop: pixels of padding around the image before a crop of its own size is taken; 0 for none.
        flip: whether half of the images are mirrored.
        erase: share of the images in which a rectangle is erased, in [0, 1] (Zhong et al. 2020, arXiv:1708.04896).
        scale: images are scaled by a random factor in ``[1 - scale, 1 + scale]``, in [0, 1).
        rotate: largest angle by which images are turned, degrees.
        shear: largest angle by which images are sheared, degrees.
        randaugment: number of random operations on each batch (RandAugment, Cubuk et al. 2020, arXiv:1909.13719).
        magnitude: of these operations, 0 to 30.
        mixup: α of the Beta distribution that samples are mixed by (Zhang et al. 2018, arXiv:1710.09412); 0 for none.
        cutmix: α for rectangles of other images (Yun et al. 2019, arXiv:1905.04899); 0 for none. With both, a coin
            decides for each batch.
        token_dropout: probability with which each token of a text is lost, in [0, 1).
        copies: changed copies of the training images that are drawn once, of which a batch takes its rows at random;
            0 changes every batch anew. Teachers are asked once about each, and no change is computed while training
            (8 copies of Fashion-MNIST take 340 MB). ``mixup`` and ``cutmix`` still act on batches.

    Raises:
        RequestError: an argument is out of range.
    """

    def __init__(
        self,
        crop: int | None = None,
        flip: bool | None = None,
        erase: float = 0.0,
        scale: float = 0.0,
        rotate: float = 0.0,
        shear: float = 0.0,
        randaugment: int = 0,
        magnitude: int = 9,
        mixup: float = 0.0,
        cutmix: float = 0.0,
        token_dropout: float | None = None,
        copies: int = 0,
    ) -> None:
        problems = []
        if crop is not None and crop < 0:
            problems.append(f"crop: got {crop}, expected 0 pixels or more")
        if not 0 <= erase <= 1:
            problems.append(f"erase: got {erase}, expected a share in [0, 1]")
        for name, share in (("scale", scale), ("token_dropout", token_dropout)):
            if share is not None and not 0 <= share < 1:
                problems.append(f"{name}: got {share}, expected a share in [0, 1)")
        for name, value in (("rotate", rotate), ("shear", shear)):
            if not 0 <= value <= 180:
                problems.append(f"{name}: got {value}, expected degrees from 0 to 180")
        for name, alpha in (("randaugment", randaugment), ("mixup", mixup), ("cutmix", cutmix), ("copies", copies)):
            if alpha < 0:
                problems.append(f"{name}: got {alpha}, expected 0 or more")
        if not 0 <= magnitude <= 30:
            problems.append(f"magnitude: got {magnitude}, expected 0 to 30")
        if problems:
            raise RequestError([f"augment.{problem}" for problem in problems])
        self.crop = crop
        self.flip = flip
        self.erase = erase
        self.scale = scale
        self.rotate = rotate
        self.shear = shear
        self.randaugment = randaugment
        self.magnitude = magnitude
        self.mixup = mixup
        self.cutmix = cutmix
        self.token_dropout = token_dropout
        self.copies = copies
        self._pipeline: nn.Module | None = None
        self._drawn: Copies | None = None

    def prepare(self, run: Run, fit: Fit) -> None:
        """Builds the changes for this dataset's samples."""
        schema = run.data.schema
        if schema.kind == "image":
            self._pipeline = pipeline(self._changes(schema.shape, schema.flips), schema.shape)
            if self.copies and self._pipeline is not None and self._drawn is None:
                self._drawn = Copies(run, self._pipeline, self.copies)
        if schema.kind != "image" and self.cutmix:
            raise RequestError(
                f"augment.cutmix: cuts rectangles out of images, {run.data.name} holds {schema.kind} data"
            )
        if schema.kind == "text" and self.mixup:
            raise RequestError(f"augment.mixup: cannot mix token ids, and {run.data.name} holds texts")
        if schema.kind == "tabular" and not self.mixup:
            run.report.note(f"augment does nothing: {run.data.name} holds tabular data; augment.mixup works for it")

    def batch(self, run: Run, batch: Batch) -> Batch:
        """The batch with its samples changed; roles, positions and views stay."""
        schema = run.data.schema
        if self._drawn is not None and self._drawn.holds(batch):
            batch = self._drawn.draw(batch)
        elif self._pipeline is not None:
            batch = batch.with_(x=self._pipeline(batch.x))
        if schema.kind == "text":
            share = TOKEN_DROPOUT if self.token_dropout is None else self.token_dropout
            return batch.with_(x=drop_tokens(batch.x, share, schema.pad_id)) if share else batch
        if self.mixup and self.cutmix:
            mix, alpha = (mixup, self.mixup) if float(torch.rand(())) < 0.5 else (cutmix, self.cutmix)
        else:
            mix, alpha = (mixup, self.mixup) if self.mixup else (cutmix, self.cutmix)
        return mix(batch, alpha, run.task.name, run.task.num_classes) if alpha else batch

    def _changes(self, shape: tuple[int, ...], flips: bool) -> Changes:
        return Changes(
            crop=max(1, min(shape[1:]) // 8) if self.crop is None else self.crop,
            flip=flips if self.flip is None else self.flip,
            scale=self.scale,
            rotate=self.rotate,
            shear=self.shear,
            erase=self.erase,
            randaugment=self.randaugment,
            magnitude=self.magnitude,
        )
