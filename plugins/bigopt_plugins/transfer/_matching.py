"""Maps from one feature space to another, learned on pairs of features of the same samples."""

from __future__ import annotations

import torch
from torch import Tensor

from bigopt.vocabulary.errors import RequestError


def ridge(x: Tensor, y: Tensor, strength: float) -> tuple[Tensor, Tensor]:
    """Affine map with the least squared error, of standardised features (Hoerl and Kennard 1970).

    ``W = (XᵀX / N + λ I)⁻¹ XᵀY / N`` for ``X`` standardised and ``Y`` centred.

    Args:
        x: features ``(N, F)``.
        y: features ``(N, G)`` of the same samples.
        strength: λ, above 0, beside the standardised features' variance of 1.

    Returns:
        weight ``(G, F)`` and bias ``(G,)`` for features as they are.
    """
    x, y = x.double(), y.double()
    mean, target = x.mean(0), y.mean(0)
    std = (x - mean).square().mean(0).sqrt()
    std = torch.where(std > 1e-9 * (1 + mean.abs()), std, torch.ones_like(std))
    z = (x - mean) / std
    gram = z.T @ z / len(z) + strength * torch.eye(z.shape[1], dtype=z.dtype)
    weight = torch.linalg.solve(gram, z.T @ (y - target) / len(z)).T / std
    return weight.float(), (target - weight @ mean).float()


def procrustes(x: Tensor, y: Tensor) -> tuple[Tensor, float, Tensor]:
    """Rotation (or reflection), scale and shift with the least squared error (Schönemann and Carroll 1970).

    ``R = U Vᵀ`` of the singular value decomposition ``Xᵀ Y = U Σ Vᵀ`` of centred features; the scale is
    ``tr Σ / ‖X‖²``.

    Args:
        x: features ``(N, F)``.
        y: features ``(N, F)`` of the same samples.

    Returns:
        an orthogonal matrix ``(F, F)``, the scale, and the bias ``(F,)``: ``y ≈ scale · x R + bias``.

    Raises:
        RequestError: dimensions differ.
    """
    if x.shape[1] != y.shape[1]:
        raise RequestError(
            f"transfer.map: procrustes needs equal dimensions, got {x.shape[1]} features of the new extractor and "
            f"{y.shape[1]} of the old one; use ridge or mlp"
        )
    x, y = x.double(), y.double()
    a, b = x - x.mean(0), y - y.mean(0)
    u, s, vt = torch.linalg.svd(a.T @ b)
    rotation = u @ vt
    scale = float(s.sum() / a.square().sum().clamp_min(1e-30))
    return rotation.float(), scale, (y.mean(0) - scale * (x.mean(0) @ rotation)).float()


def matching_error(predicted: Tensor, wanted: Tensor) -> float:
    """Squared error of matched features as a share of the wanted ones' variance: 0 is exact, 1 is the mean's."""
    spread = (wanted - wanted.mean(0)).square().sum()
    return float((predicted - wanted).square().sum() / spread.clamp_min(1e-30))
