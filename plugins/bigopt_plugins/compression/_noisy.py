"""Layers whose weights are normal distributions, for sparse variational dropout (Molchanov et al. 2017)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from bigopt_plugins.compression._layers import weight_of, with_weight

K1, K2, K3 = 0.63576, 1.87320, 1.48695
"""Constants of the approximation, eq. 14."""

TINY = 1e-8


def kl_divergence(log_alpha: Tensor) -> Tensor:
    """KL from posterior to log-uniform prior, element by element (eq. 14; the constant makes it 0 at α → ∞).

    ``KL ≈ −(k1·σ(k2 + k3·log α) − ½·log(1 + α⁻¹) − k1)``
    """
    return K1 * (1 - torch.sigmoid(K2 + K3 * log_alpha)) + 0.5 * nn.functional.softplus(-log_alpha)


class NoisyLayer(nn.Module):
    """A layer with weights ``w ~ N(θ, σ²)``, ``σ² = αθ²`` (additive noise: θ and log σ² are what is trained).

    In training the output is drawn instead of the weights (local reparametrisation, eq. 17):
    ``N(x·θ, x²·σ²)``. In evaluation weights with ``log α`` over the threshold are 0, the others θ.

    Args:
        layer: convolution or linear layer; keeps θ and the bias.
        log_alpha: at the start, the same for all weights.
        threshold: of log α.
    """

    log_sigma2: nn.Parameter

    def __init__(self, layer: nn.Module, log_alpha: float, threshold: float) -> None:
        super().__init__()
        self.layer = layer
        self.threshold = threshold
        theta = self.theta.detach()
        floor = theta.square().mean().clamp_min(TINY) * 1e-4  # weights that are 0 have no finite noise of their own
        self.log_sigma2 = nn.Parameter(theta.square().clamp_min(floor).log() + log_alpha)

    @property
    def theta(self) -> Tensor:
        """Means of the weights."""
        return weight_of(self.layer)

    @property
    def weight(self) -> Tensor:
        """The weights that are left in evaluation: what reads weights directly sees these."""
        return torch.where(self.log_alpha() < self.threshold, self.theta, 0.0)

    @property
    def bias(self) -> Tensor | None:
        """The layer's bias."""
        return self.layer.bias  # type: ignore[return-value]

    def log_alpha(self) -> Tensor:
        """``log α = log σ² − log θ²``, within ±8, beyond which nothing changes but the numbers' size."""
        return (self.log_sigma2 - (self.theta.square() + TINY).log()).clamp(-8, 8)

    def forward(self, x: Tensor) -> Tensor:
        """A random output in training, the settled one in evaluation."""
        if not self.training:
            return with_weight(self.layer, x, self.weight, self.bias)
        mean: Tensor = self.layer(x)
        variance = self.log_alpha().exp() * self.theta.square()
        spread = (with_weight(self.layer, x.square(), variance, None).clamp_min(0) + TINY).sqrt()
        return mean + spread * torch.randn_like(mean)


class Warm(nn.Module):
    """Share of the KL that acts, from 0 to 1."""

    share: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("share", torch.zeros(()))
