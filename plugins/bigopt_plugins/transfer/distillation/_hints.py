"""Hints: features of a teacher's layer that a student's layer learns to foretell."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional

from bigopt_plugins.transfer.distillation._attention import pooled


class Regressor(nn.Module):
    """From the student's channels to the teacher's: a 1×1 convolution, or the same of tokens and vectors.

    FitNets (Romero et al. 2015, arXiv:1412.6550) uses a convolution as well, with kernels that shrink the map; here
    maps are averaged to the coarser of the two grids instead.

    Args:
        inputs: the student's channels.
        outputs: the teacher's channels.
        maps: whether features are maps ``(N, C, H, W)``, not tokens ``(N, L, D)`` or vectors ``(N, F)``.
    """

    def __init__(self, inputs: int, outputs: int, maps: bool) -> None:
        super().__init__()
        self.layer = nn.Conv2d(inputs, outputs, 1) if maps else nn.Linear(inputs, outputs)

    def forward(self, features: Tensor) -> Tensor:
        """``(N, inputs, H, W)`` to ``(N, outputs, H, W)``; ``(…, inputs)`` to ``(…, outputs)``."""
        out: Tensor = self.layer(features)
        return out


def hint(features: Tensor, grid: Sequence[int] = ()) -> Tensor:
    """Features as they are compared: averaged to the grid, float32."""
    if features.ndim == 3:
        return pooled(features.float().transpose(1, 2), grid).transpose(1, 2)
    return pooled(features.float(), grid)


def hint_loss(regressor: nn.Module, student: Tensor, teacher: Tensor) -> Tensor:
    """``½ · mean (r(v_S) - u_T)²`` (FitNets, eq. 3, with the mean over all elements in the sum's place).

    Args:
        regressor: gives the teacher's channels.
        student: ``(N, C, H, W)``, ``(N, L, D)`` or ``(N, F)``, see :func:`hint`.
        teacher: the same, with the teacher's channels.
    """
    return functional.mse_loss(regressor(student).float(), teacher) / 2
