"""Linear operators on the kernels of convolutions and the rows of linear layers, and the smoothed ℓ0 norm."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from bigopt_plugins.compression.gaussian_constraint._projection import Projection, project_once

Kernel = Sequence[Sequence[float]]

LAPLACIAN: Kernel = ((0.0, -1.0, 0.0), (-1.0, 4.0, -1.0), (0.0, -1.0, 0.0))
LAPLACIAN_1D: Kernel = ((-1.0, 2.0, -1.0),)
WORST = 1e8
"""Condition number from which on an operator counts as one that cannot be inverted."""
WIDEST = 2048
"""Longest row that an operator is written down for as a matrix."""
WELL = 100.0
"""Condition number up to which an operator's inverse may act on every step of a training."""


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
        condition: ``‖D‖₂ ‖D⁻¹‖₂``.
        bound: ``‖D‖₂²``: a gradient step of 1 / bound is the longest that is safe.
        size: height and width of what the kernel slides over.
        kernel: of D; empty for the identity.
    """

    length: int
    matrix: Tensor | None = None
    inverse: Tensor | None = None
    condition: float = 1.0
    bound: float = 1.0
    size: tuple[int, int] = (1, 1)
    kernel: Kernel = ()

    @classmethod
    def of(cls, size: tuple[int, int], kernel: Kernel) -> Operator:
        """The convolution with a kernel; the identity without one."""
        if not kernel:
            return cls(size[0] * size[1], size=size)
        matrix = convolution_matrix(size, kernel)
        values = torch.linalg.svdvals(matrix)
        condition, bound = float(values[0] / values[-1]), float(values[0]) ** 2
        return cls(len(matrix), matrix, torch.linalg.inv(matrix), condition, bound, size, kernel)

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
        """The sparse z with this support whose w is nearest to a weight, in float64.

        Args:
            weight: w.
            keep: bool of the same shape: where z may differ from 0.
        """
        if self.matrix is None:
            return weight.double() * keep
        rows = project_once(self.matrix, keep.reshape(-1, self.length), weight.reshape(-1, self.length))
        return self.sparse(rows.reshape(weight.shape)) * keep

    def projection(self, keep: Tensor) -> Callable[[Tensor], Tensor]:
        """What brings a weight back to this support after a small step; for use in every step of a training.

        Where D is well conditioned, ``D⁻¹(m ⊙ D w)`` is as good as the orthogonal projection, and needs no memory.
        """
        matrix = self.matrix
        if matrix is None:
            return lambda weight: weight.masked_fill(~keep, 0)
        if self.condition <= WELL:
            return lambda weight: self.rebuild(self.sparse(weight.double()) * keep).to(weight.dtype)
        project = Projection(matrix, keep.reshape(-1, self.length))
        return lambda weight: project(weight.reshape(-1, self.length)).reshape(weight.shape).to(weight.dtype)

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
