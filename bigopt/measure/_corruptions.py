"""Corruptions of inputs at five strengths, the same for every model (after Hendrycks and Dietterich 2019)."""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from bigopt.vocabulary.data import Schema, Split

Strengths = tuple[float, float, float, float, float]


class Draws:
    """Random numbers that belong to samples, not to batches: the same for every model, batch size and strength.

    Args:
        index: positions of the samples in their split.
        seed: of the evaluation and the corruption.
    """

    def __init__(self, index: Tensor, seed: int) -> None:
        self._index = index.tolist()
        self._seed = seed

    def normal(self, *shape: int) -> Tensor:
        """Standard normal values ``(N, *shape)``."""
        return torch.stack([torch.randn(shape, generator=generator) for generator in self._generators()])

    def uniform(self, *shape: int) -> Tensor:
        """Uniform values in [0, 1) ``(N, *shape)``."""
        return torch.stack([torch.rand(shape, generator=generator) for generator in self._generators()])

    def _generators(self) -> Iterator[torch.Generator]:
        generator = torch.Generator()
        for index in self._index:
            yield generator.manual_seed(self._seed * 1_000_003 + index)


Apply = Callable[[Tensor, float, Draws], Tensor]


@dataclass(frozen=True)
class Corruption:
    """A way to spoil inputs.

    Attributes:
        strengths: what severities 1 to 5 mean.
        apply: spoiled inputs, from inputs, a strength and random numbers.
    """

    strengths: Strengths
    apply: Apply


@dataclass
class CorruptedSplit:
    """A split whose inputs are spoiled as they are read; it is one itself."""

    split: Split
    corruption: Corruption
    severity: int
    seed: int

    def __post_init__(self) -> None:
        self.y = self.split.y
        self.in_memory = self.split.in_memory

    def __len__(self) -> int:
        return len(self.split)

    def take(self, index: Tensor) -> Tensor:
        """Spoiled inputs at these positions, the same whichever others are asked for."""
        strength = self.corruption.strengths[self.severity - 1]
        return self.corruption.apply(self.split.take(index), strength, Draws(index, self.seed))


def corruptions(schema: Schema, spread: Tensor | None = None) -> dict[str, Corruption]:
    """The corruptions that suit a kind of data, by name.

    Args:
        schema: what a sample looks like.
        spread: standard deviation of every feature ``(F,)``, for tabular data.
    """
    if schema.kind == "image":
        lossy = {"jpeg": Corruption((80, 65, 50, 30, 15), _jpeg)} if schema.shape[0] in (1, 3) else {}
        return IMAGE | lossy
    if schema.kind == "tabular":
        assert spread is not None
        return {"feature_noise": Corruption((0.1, 0.2, 0.4, 0.6, 0.8), lambda x, s, d: _feature_noise(x, s, d, spread))}
    pad = schema.pad_id
    return {"token_drop": Corruption((0.05, 0.1, 0.2, 0.3, 0.4), lambda x, s, d: _token_drop(x, s, d, pad))}


def seed_of(seed: int, name: str) -> int:
    """A seed of each corruption's own."""
    return seed * 65_537 + zlib.crc32(name.encode()) % 65_537


def _gaussian_noise(x: Tensor, std: float, draws: Draws) -> Tensor:
    return (x + std * draws.normal(*x.shape[1:])).clamp(0, 1)


def _gaussian_blur(x: Tensor, sigma: float, draws: Draws) -> Tensor:
    """Sigma is in pixels, and grows with images of more than 32."""
    from kornia.filters import gaussian_blur2d

    side = min(x.shape[-2:])
    sigma = sigma * max(1.0, side / 32)
    kernel = min(2 * math.ceil(3 * sigma) + 1, 2 * side - 1)
    return gaussian_blur2d(x, kernel, (sigma, sigma))


def _brightness(x: Tensor, amount: float, draws: Draws) -> Tensor:
    from kornia.enhance import adjust_brightness

    return adjust_brightness(x, amount)


def _contrast(x: Tensor, factor: float, draws: Draws) -> Tensor:
    from kornia.enhance import adjust_contrast_with_mean_subtraction

    return torch.cat([adjust_contrast_with_mean_subtraction(image[None], factor) for image in x]).clamp(0, 1)


def _rotation(x: Tensor, degrees: float, draws: Draws) -> Tensor:
    from kornia.geometry.transform import rotate

    return rotate(x, torch.where(draws.uniform() < 0.5, -degrees, degrees).to(x.dtype))


def _translation(x: Tensor, share: float, draws: Draws) -> Tensor:
    """A shift by a share of the size, in a random direction."""
    from kornia.geometry.transform import translate

    angle = 2 * math.pi * draws.uniform()
    shift = torch.stack((angle.cos() * x.shape[-1], angle.sin() * x.shape[-2]), 1) * share
    return translate(x, shift)


def _erasing(x: Tensor, area: float, draws: Draws) -> Tensor:
    """A black rectangle of this share of the image, anywhere inside it."""
    height, width = (max(1, round(size * math.sqrt(area))) for size in x.shape[-2:])
    place = draws.uniform(2)
    top = (place[:, 0] * (x.shape[-2] - height + 1)).long()[:, None]
    left = (place[:, 1] * (x.shape[-1] - width + 1)).long()[:, None]
    rows, columns = torch.arange(x.shape[-2]), torch.arange(x.shape[-1])
    in_rows = (rows >= top) & (rows < top + height)
    in_columns = (columns >= left) & (columns < left + width)
    return x.masked_fill((in_rows[:, :, None] & in_columns[:, None, :])[:, None], 0.0)


def _jpeg(x: Tensor, quality: float, draws: Draws) -> Tensor:
    """Grey images pass as colour ones; sides are filled up to whole blocks of 16."""
    from kornia.enhance import jpeg_codec_differentiable

    height, width = x.shape[-2:]
    whole = functional.pad(x, (0, -width % 16, 0, -height % 16), mode="replicate")
    coloured = whole.expand(-1, 3, -1, -1) if x.shape[1] == 1 else whole
    packed = jpeg_codec_differentiable(coloured, torch.full((len(x),), quality))[..., :height, :width]
    return (packed.mean(1, keepdim=True) if x.shape[1] == 1 else packed).clamp(0, 1)


def _feature_noise(x: Tensor, share: float, draws: Draws, spread: Tensor) -> Tensor:
    return x + share * spread.to(x.dtype) * draws.normal(*x.shape[1:])


def _token_drop(x: Tensor, share: float, draws: Draws, pad: int) -> Tensor:
    """Removes tokens and closes the gaps; the first one, which some nets read their answer from, stays."""
    dropped = (draws.uniform(x.shape[1]) < share) & (x != pad)
    dropped[:, 0] = False
    order = dropped.to(torch.uint8).argsort(dim=1, stable=True)
    return x.masked_fill(dropped, pad).gather(1, order)


IMAGE: dict[str, Corruption] = {
    "gaussian_noise": Corruption((0.04, 0.08, 0.12, 0.18, 0.26), _gaussian_noise),
    "gaussian_blur": Corruption((0.4, 0.6, 0.8, 1.0, 1.4), _gaussian_blur),
    "brightness": Corruption((0.1, 0.2, 0.3, 0.4, 0.5), _brightness),
    "contrast": Corruption((0.75, 0.6, 0.45, 0.3, 0.2), _contrast),
    "rotation": Corruption((5, 10, 15, 20, 30), _rotation),
    "translation": Corruption((0.04, 0.08, 0.12, 0.16, 0.2), _translation),
    "erasing": Corruption((0.02, 0.05, 0.1, 0.15, 0.25), _erasing),
}
