"""The hard concrete distribution (Louizos et al. 2018, arXiv:1712.01312), and modules that hold gates."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from bigopt_plugins.compression._layers import channel_shape, swap, weight_of, with_weight

BETA = 2 / 3
GAMMA = -0.1
ZETA = 1.1
OPEN = 0.05
"""Rate of closed gates at the start: all gates are 1 when the model is evaluated, so that it starts unchanged."""


def probability(log_alpha: Tensor) -> Tensor:
    """``P(z ≠ 0) = sigmoid(log α − β·log(−γ/ζ))`` (eq. 12)."""
    return torch.sigmoid(log_alpha - BETA * math.log(-GAMMA / ZETA))


def sample(log_alpha: Tensor, u: Tensor) -> Tensor:
    """``z = min(1, max(0, s̄))``, ``s̄ = s(ζ − γ) + γ``, ``s = sigmoid((log u − log(1 − u) + log α)/β)`` (eq. 10, 11)."""
    return _stretch(torch.sigmoid((u.log() - (1 - u).log() + log_alpha) / BETA))


def settled(log_alpha: Tensor) -> Tensor:
    """``ẑ = min(1, max(0, sigmoid(log α)(ζ − γ) + γ))``, what is used once training is over (eq. 13)."""
    return _stretch(torch.sigmoid(log_alpha))


def _stretch(s: Tensor) -> Tensor:
    return (s * (ZETA - GAMMA) + GAMMA).clamp(0, 1)


class HardConcrete(nn.Module):
    """Gates ``z`` of a shape: random in training, settled in evaluation.

    Args:
        shape: of the gates.
        generator: breaks the symmetry between gates.
    """

    log_alpha: nn.Parameter
    noise: Tensor

    def __init__(self, shape: torch.Size | tuple[int, ...], generator: torch.Generator) -> None:
        super().__init__()
        start = math.log(1 - OPEN) - math.log(OPEN)
        self.log_alpha = nn.Parameter(start + 0.01 * torch.randn(shape, generator=generator))
        self.register_buffer("noise", torch.full(shape, 0.5), persistent=False)

    def draw(self) -> None:
        """Draws the noise of the next step; whatever shares these gates sees the same sample."""
        tiny = torch.finfo(torch.float32).eps
        self.noise.uniform_(tiny, 1 - tiny)

    def forward(self) -> Tensor:
        """Gates in [0, 1]."""
        return sample(self.log_alpha, self.noise) if self.training else settled(self.log_alpha)

    def close(self, index: Tensor) -> None:
        """Closes these gates (a flat index) for good."""
        mask = torch.zeros(self.log_alpha.numel(), dtype=torch.bool, device=self.log_alpha.device)
        mask[index] = True
        with torch.no_grad():  # a view would not do: in training images' weights are laid out with the channels last
            self.log_alpha.masked_fill_(mask.reshape(self.log_alpha.shape), -10.0)


class GatedInput(nn.Module):
    """A layer whose input channels have gates; several sets of gates where the input was joined from several.

    Args:
        layer: convolution (not grouped) or linear layer.
        gates: sets of gates.
        index: ``(R, C_in)``: positions of the gates of each input channel, whose product acts, among all gates, from 1;
            0 for none.
    """

    index: Tensor

    def __init__(self, layer: nn.Module, gates: list[HardConcrete], index: Tensor) -> None:
        super().__init__()
        self.layer = layer
        self.gates = nn.ModuleList(gates)
        self.register_buffer("index", index, persistent=False)

    def factor(self) -> Tensor:
        """Gate of each input channel ``(C_in,)``."""
        values = [gate() for gate in self.gates]
        acting: Tensor = torch.cat([values[0].new_ones(1), *values])[self.index]
        return acting.prod(dim=0)

    def forward(self, x: Tensor) -> Tensor:
        """The layer of ``x · z``."""
        out: Tensor = self.layer(x * self.factor().reshape(channel_shape(self.layer)))
        return out

    @property
    def weight(self) -> Tensor:
        """The layer's weight times the gates: what reads weights directly sees the gated ones."""
        weight = weight_of(self.layer)
        return weight * self.factor().reshape(1, -1, *(1,) * (weight.ndim - 2))

    @property
    def bias(self) -> Tensor | None:
        """The layer's bias."""
        return self.layer.bias  # type: ignore[return-value]


class GatedWeight(nn.Module):
    """A layer with a gate on each weight.

    Args:
        layer: convolution or linear layer.
        gate: of the weight's shape.
    """

    def __init__(self, layer: nn.Module, gate: HardConcrete) -> None:
        super().__init__()
        self.layer = layer
        self.gate = gate

    def forward(self, x: Tensor) -> Tensor:
        """The layer with ``w · z`` for a weight."""
        return with_weight(self.layer, x, self.weight, self.bias)

    @property
    def weight(self) -> Tensor:
        """The gated weight."""
        weight: Tensor = weight_of(self.layer) * self.gate()
        return weight

    @property
    def bias(self) -> Tensor | None:
        """The layer's bias."""
        return self.layer.bias  # type: ignore[return-value]


@torch.no_grad()
def bake(model: nn.Module) -> None:
    """Multiplies every settled gate into its layer's weight and puts the plain layers back, in place."""
    model.eval()
    plain: dict[nn.Module, nn.Module] = {}
    for module in model.modules():
        if isinstance(module, GatedInput | GatedWeight):
            weight_of(module.layer).copy_(module.weight)
            plain[module] = module.layer
    swap(model, plain)
