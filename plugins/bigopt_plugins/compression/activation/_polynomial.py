"""Polynomials in the place of activations, and their least-squares fit."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


class Polynomial(nn.Module):
    """``p(x) = c₀ + c₁x + … + c_d x^d`` of x clamped to the range that was observed.

    Args:
        order: d.
        low: lower end of the range.
        high: upper end.
        shape: of each coefficient: ``(1,)`` for one polynomial, or a shape that broadcasts over channels.
    """

    channelwise = True
    """Each channel is computed on its own, so that a gate or a removal behind it is the same as one before it."""

    low: Tensor
    high: Tensor

    def __init__(self, order: int, low: float, high: float, shape: tuple[int, ...] = (1,)) -> None:
        super().__init__()
        self.order = order
        # One parameter each, so that removing channels finds them; nothing decays them towards 0 (see the plugin).
        self.coefficients = nn.ParameterList([nn.Parameter(torch.zeros(shape)) for _ in range(order + 1)])
        self.register_buffer("low", torch.tensor(float(low)))
        self.register_buffer("high", torch.tensor(float(high)))

    def forward(self, x: Tensor) -> Tensor:
        """The polynomial, elementwise, by Horner's rule."""
        x = torch.minimum(torch.maximum(x, self.low), self.high)
        out: Tensor = self.coefficients[self.order] * x + self.coefficients[self.order - 1]
        for power in range(self.order - 2, -1, -1):
            out = out * x + self.coefficients[power]
        return out

    @torch.no_grad()
    def set(self, coefficients: Tensor) -> None:
        """Takes coefficients ``(d + 1,)`` or ``(d + 1, C)``, lowest power first."""
        for parameter, value in zip(self.coefficients, coefficients, strict=True):
            parameter.copy_(value.reshape(parameter.shape))


class Moments:
    """Running sums behind a least-squares fit of a function on what is observed, for one layer or each channel.

    The fit is in ``t = (x − middle)/half``, which lies in [-1, 1], in double precision.

    Args:
        order: of the polynomial.
        low: least observed input.
        high: greatest observed input.
    """

    def __init__(self, order: int, low: float, high: float) -> None:
        self.order = order
        self.middle = (low + high) / 2
        self.half = (high - low) / 2 or 1.0
        self.powers: Tensor | None = None
        self.products: Tensor | None = None
        self.squares: Tensor | None = None

    def add(self, x: Tensor, y: Tensor) -> None:
        """Takes in inputs and wanted outputs ``(C, n)``; C = 1 for one fit."""
        t = (x.double() - self.middle) / self.half
        y = y.double()
        powers = torch.stack([(t**k).sum(1) for k in range(2 * self.order + 1)])
        products = torch.stack([(t**k * y).sum(1) for k in range(self.order + 1)])
        squares = (y * y).sum(1)
        if self.powers is None or self.products is None or self.squares is None:
            self.powers, self.products, self.squares = powers, products, squares
        else:
            self.powers += powers
            self.products += products
            self.squares += squares

    def solve(self) -> tuple[Tensor, Tensor]:
        """Coefficients in x ``(d + 1, C)``, and the root of the mean squared error ``(C,)``."""
        assert self.powers is not None and self.products is not None and self.squares is not None
        place = torch.arange(self.order + 1)
        gram = self.powers[place[:, None] + place[None, :]].permute(2, 0, 1)  # (C, d+1, d+1)
        right = self.products.T.unsqueeze(2)
        solution = torch.linalg.pinv(gram, hermitian=True, rtol=1e-12) @ right  # a channel may be constant
        error = self.squares - (solution * right).sum((1, 2))
        rmse = (error.clamp_min(0) / self.powers[0]).sqrt()
        return in_x(solution.squeeze(2).T, self.middle, self.half), rmse


def in_x(coefficients: Tensor, middle: float, half: float) -> Tensor:
    """Coefficients of the same polynomial in ``x = middle + half·t``, from those in t ``(d + 1, C)``."""
    result = torch.zeros_like(coefficients)
    for k, row in enumerate(coefficients):
        for j in range(k + 1):
            result[j] += row * math.comb(k, j) * (-middle) ** (k - j) / half**k
    return result
