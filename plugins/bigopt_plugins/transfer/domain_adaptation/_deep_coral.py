"""Deep CORAL: the domains' features get the same covariance."""

from __future__ import annotations

from torch import Tensor

from bigopt_plugins.transfer.domain_adaptation._step import Step


def covariance(x: Tensor) -> Tensor:
    """Unbiased covariance ``(F, F)`` of rows ``(N, F)``."""
    centred = x - x.mean(0, keepdim=True)
    return centred.T @ centred / (len(x) - 1)


def coral(x: Tensor, y: Tensor) -> Tensor:
    """``‖C_x - C_y‖²_F / (4 d²)`` (Sun and Saenko 2016, eq. 1) of ``(N, d)`` and ``(M, d)``."""
    return (covariance(x) - covariance(y)).square().sum() / (4 * x.shape[1] ** 2)


def deep_coral(step: Step) -> Tensor:
    """Correlation alignment at the head's input (Sun and Saenko 2016, arXiv:1607.01719).

    The paper weighs the term so that it ends near the classification loss; the plugin's own weight does on mnist5k →
    digits.
    """
    return coral(step.source, step.target)
