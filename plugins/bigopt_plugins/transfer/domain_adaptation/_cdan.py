"""CDAN: the discriminator sees features together with what the classifier makes of them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from bigopt_plugins.transfer.domain_adaptation._dann import Discriminator, domain_loss, ramp, reverse
from bigopt_plugins.transfer.domain_adaptation._step import Step

LARGEST = 4096
"""Largest width of the full multilinear map (Long et al. 2018, eq. 7); wider ones are drawn at random."""

RANDOM = 1024


def multilinear(features: Tensor, probabilities: Tensor) -> Tensor:
    """Every product of a feature and a probability: ``(N, F)`` and ``(N, K)`` to ``(N, F · K)``."""
    return (features.unsqueeze(2) * probabilities.unsqueeze(1)).flatten(1)


def entropy(probabilities: Tensor) -> Tensor:
    """Shannon entropy of every row ``(N,)``, nats."""
    return -(probabilities * probabilities.clamp_min(1e-12).log()).sum(1)


def certainty(probabilities: Tensor) -> Tensor:
    """Weights ``1 + exp(-H)`` that put certain rows first (Long et al. 2018, eq. 8), scaled to mean 1."""
    weight = 1 + torch.exp(-entropy(probabilities))
    return weight / weight.mean()


class ConditionalDiscriminator(nn.Module):
    """A discriminator of features and class probabilities.

    Args:
        features: width of the features.
        classes: number of classes.
        hidden: units of each hidden layer.
        seed: of the random map, for ``features · classes`` above :data:`LARGEST`.
    """

    random_features: Tensor | None
    random_classes: Tensor | None

    def __init__(self, features: int, classes: int, hidden: int = 128, seed: int = 0) -> None:
        super().__init__()
        self.inputs = features
        full = features * classes
        draw = torch.Generator().manual_seed(seed)
        wide = full > LARGEST
        self.register_buffer("random_features", torch.randn(features, RANDOM, generator=draw) if wide else None)
        self.register_buffer("random_classes", torch.randn(classes, RANDOM, generator=draw) if wide else None)
        self.domain = Discriminator(RANDOM if wide else full, hidden)

    def forward(self, features: Tensor, probabilities: Tensor) -> Tensor:
        """Logits ``(N,)`` for the source domain."""
        if self.random_features is None or self.random_classes is None:
            joint = multilinear(features, probabilities)
        else:  # eq. 6
            joint = (features @ self.random_features) * (probabilities @ self.random_classes) / RANDOM**0.5
        logits: Tensor = self.domain(joint)
        return logits


def cdan(step: Step, discriminator: nn.Module) -> Tensor:
    """Conditional adversarial adaptation with entropy conditioning, CDAN+E (Long et al. 2018, arXiv:1705.10667).

    Class probabilities and weights are taken as constants, so that the term trains the discriminator and, reversed, the
    features; the head learns from labels alone.
    """
    strength = ramp(step.progress)
    source = step.source_logits.detach().softmax(1)
    target = step.target_logits.detach().softmax(1)
    return domain_loss(
        discriminator(reverse(step.source, strength), source),
        discriminator(reverse(step.target, strength), target),
        certainty(source),
        certainty(target),
    )
