"""k-means of the values of one weight tensor."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Codebook:
    """Values that the entries of a tensor share.

    Attributes:
        values: ``(K + 1,)``; the first is 0 and belongs to entries that were zero, the others are centroids,
            ascending, each of at least one entry.
        codes: for every entry of the tensor the position of its value, int64.
    """

    values: Tensor
    codes: Tensor

    def decoded(self) -> Tensor:
        """The tensor with shared values."""
        return self.values[self.codes]


def cluster(weight: Tensor, size: int, start: str, generator: torch.Generator, rounds: int = 100) -> Codebook:
    """Clusters what is not zero: ``argmin Σ_k Σ_{w in k} |w - c_k|²`` (Han et al. 2016, eq. 2), by Lloyd's steps.

    Args:
        weight: any shape.
        size: values of the codebook at most; zero is one of them where the weight has zeros.
        start: first centroids: ``linear`` between the least and the largest weight, ``density`` at quantiles,
            ``random`` weights.
        generator: for ``random``.
        rounds: of Lloyd's steps, at most.
    """
    flat = weight.detach().reshape(-1).double().cpu()
    alive = flat != 0
    values = flat[alive]
    count = size if bool(alive.all()) else max(1, size - 1)
    centroids = _start(values, count, start, generator)
    codes = torch.zeros(0, dtype=torch.int64)
    for _ in range(rounds if len(values) else 0):
        new = _nearest(values, centroids)
        if torch.equal(new, codes):
            break
        codes = new
        centroids = _means(values, codes, centroids).sort().values
    used, codes = (_nearest(values, centroids) if len(values) else codes).unique(return_inverse=True)
    centroids = _means(values, codes, centroids[used])
    all_codes = torch.zeros(len(flat), dtype=torch.int64)
    all_codes[alive] = codes + 1
    book = torch.cat([centroids.new_zeros(1), centroids]).to(weight.dtype)
    return Codebook(book.to(weight.device), all_codes.reshape(weight.shape).to(weight.device))


def codebook_of(weight: Tensor, largest: int) -> Codebook | None:
    """The codebook of a weight that shares values already; None where it has more than ``largest`` values."""
    values, codes = weight.detach().unique(return_inverse=True)
    if len(values) > largest:
        return None
    zero = values == 0
    position = (~zero).cumsum(0) * ~zero
    return Codebook(torch.cat([values.new_zeros(1), values[~zero]]), position[codes])


def _start(values: Tensor, count: int, start: str, generator: torch.Generator) -> Tensor:
    if not len(values):
        return values
    ordered = torch.sort(values)[0]
    if start == "random":
        distinct = torch.unique_consecutive(ordered)
        chosen: Tensor = torch.randperm(len(distinct), generator=generator)[:count]
        return torch.sort(distinct[chosen])[0]
    if start == "density":
        places = ((torch.arange(count) + 0.5) / count * len(values)).long()
        quantiles: Tensor = torch.unique_consecutive(ordered[places])
        return quantiles
    low, high = values.min(), values.max()
    return torch.linspace(0, 1, count, dtype=values.dtype) * (high - low) + low if count > 1 else (low + high)[None] / 2


def _nearest(values: Tensor, centroids: Tensor) -> Tensor:
    """Position of the nearest of ascending centroids."""
    return torch.bucketize(values, (centroids[1:] + centroids[:-1]) / 2)


def _means(values: Tensor, codes: Tensor, centroids: Tensor) -> Tensor:
    """Mean of each cluster; one without values stays where it is."""
    counts = torch.bincount(codes, minlength=len(centroids))
    sums = torch.bincount(codes, weights=values, minlength=len(centroids))
    return torch.where(counts > 0, sums / counts.clamp_min(1), centroids)
