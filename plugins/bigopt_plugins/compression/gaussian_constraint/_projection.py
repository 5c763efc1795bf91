"""The nearest weight whose representation has a given support."""

from __future__ import annotations

import torch
from torch import Tensor

BATCH = 8_000_000
"""Numbers of a factorisation that are held at a time while a weight is projected once."""


class Projection:
    """Projects rows orthogonally onto ``{w : (D w)_c = 0}``, for a set c of entries of each row.

    ``w ← w - D_cᵀ (D_c D_cᵀ)⁻¹ D_c w``. With D = 1 this sets the entries to zero; otherwise ``D⁻¹`` of the cut
    representation would be further away, by up to the condition number of D. ``D Dᵀ`` is banded, so that each row
    costs ``n · width²``, and all rows are factorised side by side (Cholesky).

    Args:
        matrix: D ``(n, n)`` float64.
        keep: ``(rows, n)`` bool, False in c.
    """

    def __init__(self, matrix: Tensor, keep: Tensor) -> None:
        self.matrix = matrix.to(keep.device)
        self.cut = (~keep).double().T.contiguous()
        gram = self.matrix @ self.matrix.T
        self.width = bandwidth(gram)
        self._factorise(gram)

    def __call__(self, rows: Tensor) -> Tensor:
        """The projected rows ``(rows, n)``, in float64."""
        rows = rows.double()
        y = (self.matrix @ rows.T) * self.cut
        n, b = y.shape[0], self.width
        for i in range(n):
            low = max(0, i - b)
            y[i] = (y[i] - (self.lower[i, b - (i - low) :] * y[low:i]).sum(0)) / self.diagonal[i]
        for i in reversed(range(n)):
            low = max(0, i - b)
            y[i] /= self.diagonal[i]
            y[low:i] -= self.lower[i, b - (i - low) :] * y[i]
        return rows - (y * self.cut).T @ self.matrix

    def _factorise(self, gram: Tensor) -> None:
        """Lower triangle ``(n, width, rows)``, the columns i - width … i - 1 of row i; the diagonal ``(n, rows)``."""
        (n, rows), b, cut = self.cut.shape, self.width, self.cut
        self.lower = cut.new_zeros(n, b, rows)
        self.diagonal = cut.new_zeros(n, rows)
        for i in range(n):
            low = max(0, i - b)
            for k in range(low, i):
                first = max(low, k - b)
                mine = self.lower[i, b - (i - first) : b - (i - k)]
                theirs = self.lower[k, b - (k - first) :]
                value = gram[i, k] * cut[i] * cut[k] - (mine * theirs).sum(0)
                self.lower[i, b - (i - k)] = value / self.diagonal[k]
            own = gram[i, i] * cut[i] + (1 - cut[i])
            self.diagonal[i] = (own - self.lower[i].square().sum(0)).clamp_min(1e-300).sqrt()


def bandwidth(matrix: Tensor) -> int:
    """Largest distance of a non-zero entry from the diagonal."""
    places = matrix.nonzero()
    return int((places[:, 0] - places[:, 1]).abs().max())


def project_once(matrix: Tensor, keep: Tensor, rows: Tensor) -> Tensor:
    """As :class:`Projection`, a part of the rows at a time."""
    n = len(matrix)
    step = max(1, BATCH // (n * (bandwidth(matrix @ matrix.T) + 2)))
    parts = [Projection(matrix, k)(r) for k, r in zip(keep.split(step), rows.split(step), strict=True)]
    return torch.cat(parts)
