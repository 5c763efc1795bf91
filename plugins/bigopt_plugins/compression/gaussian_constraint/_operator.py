"""Linear operators on the kernels of convolutions and the rows of linear layers, and the smoothed ℓ0 norm."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

Kernel = Sequence[Sequence[float]]

LAPLACIAN: Kernel = ((0.0, -1.0, 0.0), (-1.0, 4.0, -1.0), (0.0, -1.0, 0.0))
LAPLACIAN_1D: Kernel = ((-1.0, 2.0, -1.0),)
WORST = 1e8
"""Condition number from which on an operator counts as one that cannot be inverted."""
WIDEST = 4096
"""Longest row that an operator is written down for as a matrix."""
REFIT = 256
"""Longest row whose sparse representation is fitted by least squares; longer ones are only cut."""
BATCH = 4_000_000
"""Numbers in the matrices that are solved at a time."""


def smoothed_l0(z: Tensor, sigma: float | Tensor) -> Tensor:
    """``Σ (1 - exp(-z²/2σ²))``: the number of entries that are large against σ (Mohimani et al. 2009, eq. 7)."""
    return -torch.expm1(-z.square() / (2 * sigma**2)).sum()


def convolution_matrix(size: tuple[int, int], kernel: Kernel) -> Tensor:
    """The matrix of a convolution with zeros outside, output as large as the input.

    Args:
        size: height and width of the input.
        kernel: odd in both directions; slides as it is (a correlation), as in neural nets.

    Returns:
        ``(height·width, height·width)`` float64; maps the flattened input to the flattened output.
    """
    k = torch.tensor([list(row) for row in kernel], dtype=torch.float64)
    count = size[0] * size[1]
    images = torch.eye(count, dtype=torch.float64).reshape(count, 1, *size)
    padding = (k.shape[0] // 2, k.shape[1] // 2)
    columns = nn.functional.conv2d(images, k[None, None], padding=padding)
    return columns.reshape(count, count).T.contiguous()


@dataclass(frozen=True)
class Operator:
    """D on the last axes of a weight, seen as rows ``(…, n)``.

    Attributes:
        length: n: positions of a kernel (convolutions), inputs (linear layers).
        matrix: D ``(n, n)`` float64; None is the identity.
        inverse: of it; None is the identity.
        bound: ``‖D‖₂²``: a gradient step of 1 / bound is the longest that is safe.
        size: height and width of what the kernel slides over.
        kernel: of D; empty for the identity.
    """

    length: int
    matrix: Tensor | None = None
    inverse: Tensor | None = None
    bound: float = 1.0
    size: tuple[int, int] = (1, 1)
    kernel: Kernel = ()

    @classmethod
    def of(cls, size: tuple[int, int], kernel: Kernel) -> Operator:
        """The convolution with a kernel; the identity without one."""
        if not kernel:
            return cls(size[0] * size[1], size=size)
        matrix = convolution_matrix(size, kernel)
        bound = float(torch.linalg.matrix_norm(matrix, 2)) ** 2
        return cls(len(matrix), matrix, torch.linalg.inv(matrix), bound, size, kernel)

    def sparse(self, weight: Tensor) -> Tensor:
        """The representation ``z = D w``, in the weight's shape and type."""
        return self._times(weight, self.matrix)

    def rebuild(self, z: Tensor) -> Tensor:
        """The weight ``w = D⁻¹ z``, in the shape and type of z; computed in float64, since D⁻¹ amplifies rounding."""
        return self._times(z.double(), self.inverse).to(z.dtype)

    def descent(self, weight: Tensor, sigma: float) -> Tensor:
        """``σ² ∇_w Σ (1 - exp(-(Dw)²/2σ²)) / ‖D‖₂² = Dᵀ(z · exp(-z²/2σ²)) / ‖D‖₂²``, in the weight's shape.

        Taking it off a weight is one step of steepest descent; with D = 1 it puts an entry far under σ to zero, and
        leaves one far over σ alone.
        """
        z = self.sparse(weight)
        small = z * (-z.square() / (2 * sigma**2)).exp()
        return self._times(small, None if self.matrix is None else self.matrix.T) / self.bound

    def cut(self, weight: Tensor, keep: Tensor) -> Tensor:
        """The sparse z with this support whose w is nearest to a weight (nearest entry by entry for long rows).

        Args:
            weight: w.
            keep: bool of the same shape: where z may differ from 0.
        """
        z = self.sparse(weight.double()) * keep
        if self.inverse is None or self.length > REFIT:
            return z.to(weight.dtype)
        gram = self.inverse.T @ self.inverse
        rows, masks = weight.double().reshape(-1, self.length), keep.reshape(-1, self.length).double()
        fitted = torch.empty_like(rows)
        step = max(1, BATCH // self.length**2)
        for start in range(0, len(rows), step):
            m = masks[start : start + step]
            system = gram * m[:, :, None] * m[:, None, :] + torch.diag_embed(1 - m)
            fitted[start : start + step] = torch.linalg.solve(system, m * (rows[start : start + step] @ self.inverse))
        return fitted.reshape(weight.shape).to(weight.dtype)

    def _times(self, weight: Tensor, matrix: Tensor | None) -> Tensor:
        if matrix is None:
            return weight
        return (weight.reshape(-1, self.length) @ matrix.T.to(weight)).reshape(weight.shape)


def operator_for(layer: nn.Module, name: str, kernel: Kernel) -> Operator | str:
    """The operator of a layer, or why there is none.

    Args:
        layer: a convolution (D acts on its kernel's plane) or a linear layer (D acts along its inputs).
        name: ``identity``, ``laplacian`` or ``kernel``.
        kernel: for ``kernel``; where there is one axis only, its middle row.
    """
    weight = layer.weight
    assert isinstance(weight, Tensor)
    size = (weight.shape[2], weight.shape[3]) if weight.ndim == 4 else (1, weight.shape[-1])
    if name == "identity":
        return Operator.of(size, ())
    if size[0] * size[1] > WIDEST:
        return f"its rows are {size[0] * size[1]} long, more than {WIDEST}"
    if name == "laplacian":
        chosen = LAPLACIAN if weight.ndim == 4 else LAPLACIAN_1D
    else:
        chosen = kernel if weight.ndim == 4 else kernel[len(kernel) // 2 : len(kernel) // 2 + 1]
    if not float(torch.linalg.cond(convolution_matrix(size, chosen))) < WORST:
        return f"the kernel cannot be inverted on {size[0]}×{size[1]}"
    return Operator.of(size, chosen)
