"""DAN: the domains' features are drawn together by a maximum mean discrepancy of several kernels."""

from __future__ import annotations

import torch
from torch import Tensor

from bigopt_plugins.transfer.domain_adaptation._step import Step

SCALES = (0.25, 0.5, 1.0, 2.0, 4.0)
"""Bandwidths as multiples of the median squared distance."""


def kernel(x: Tensor, y: Tensor, bandwidth: Tensor, scales: tuple[float, ...] = SCALES) -> Tensor:
    """Mean of Gaussian kernels ``exp(-‖x - y‖² / (s · bandwidth))`` over the scales: ``(N, M)``."""
    distance = squared_distances(x, y) / bandwidth
    return torch.stack([torch.exp(-distance / scale) for scale in scales]).mean(0)


def squared_distances(x: Tensor, y: Tensor) -> Tensor:
    """``‖x_i - y_j‖²`` for ``(N, F)`` and ``(M, F)``: ``(N, M)``, never negative."""
    products = x @ y.T
    return (x.square().sum(1, keepdim=True) + y.square().sum(1) - 2 * products).clamp_min(0)


def median_bandwidth(x: Tensor, y: Tensor) -> Tensor:
    """Median squared distance between different rows of both domains together; a constant for the gradient."""
    rows = torch.cat([x, y]).detach()
    apart = squared_distances(rows, rows)[~torch.eye(len(rows), dtype=torch.bool, device=rows.device)]
    return apart.median().clamp_min(1e-6)


def mk_mmd(x: Tensor, y: Tensor, bandwidth: Tensor | None = None, scales: tuple[float, ...] = SCALES) -> Tensor:
    """Unbiased squared MMD (Gretton et al. 2012, eq. 3) of two samples ``(N, F)`` and ``(M, F)``.

    Args:
        x: at least two rows.
        y: at least two rows.
        bandwidth: of the kernels; None takes the median heuristic.
        scales: multiples of the bandwidth, one kernel each, weighted alike.
    """
    bandwidth = median_bandwidth(x, y) if bandwidth is None else bandwidth
    within = [_without_diagonal(kernel(rows, rows, bandwidth, scales)) for rows in (x, y)]
    return within[0] + within[1] - 2 * kernel(x, y, bandwidth, scales).mean()


def _without_diagonal(values: Tensor) -> Tensor:
    n = len(values)
    return (values.sum() - values.diagonal().sum()) / (n * (n - 1))


def dan(step: Step) -> Tensor:
    """Deep adaptation network (Long et al. 2015, arXiv:1502.02791): MK-MMD at the head's input and at the logits.

    The kernels weigh the same; the paper's search for their best weights is left out.
    """
    return mk_mmd(step.source, step.target) + mk_mmd(step.source_logits, step.target_logits)
