"""DEV: the target's risk, estimated on source validation by weighing rows that look like the target."""

from __future__ import annotations

import torch
from torch import Tensor

STEPS = 20
DECAY = 2e-3


def density_ratio(source: Tensor, target: Tensor, query: Tensor) -> Tensor:
    """How much likelier each queried row is in the target than in the source.

    ``w(x) = n_s / n_t · p(target | x) / p(source | x)`` of a logistic regression between the domains (You et al. 2019,
    eq. 6).

    Args:
        source: training features ``(S, F)``.
        target: features ``(T, F)``.
        query: features ``(N, F)``.

    Returns:
        ``(N,)`` float64, positive.
    """
    both = torch.cat([source, target]).double()
    mean, std = both.mean(0), both.std(0).clamp_min(1e-6)
    x = torch.cat([(both - mean) / std, both.new_ones(len(both), 1)], dim=1)
    domain = torch.cat([both.new_zeros(len(source)), both.new_ones(len(target))])
    decay = torch.full_like(x[0], DECAY)
    decay[-1] = 0  # the intercept carries the domains' sizes
    weight = torch.zeros_like(x[0])
    for _ in range(STEPS):  # Newton's method; a ridge keeps it finite where the domains can be separated
        share = (x @ weight).sigmoid()
        slope = x.T @ (share - domain) / len(x) + decay * weight
        curvature = (x * (share * (1 - share)).unsqueeze(1)).T @ x / len(x)
        step = torch.linalg.lstsq(curvature + decay.diag(), slope.unsqueeze(1)).solution.squeeze(1)
        weight = weight - step
        if step.abs().max() < 1e-8:
            break
    log_odds = ((query.double() - mean) / std) @ weight[:-1] + weight[-1]
    return len(source) / len(target) * log_odds.clamp(-20, 20).exp()


def deep_embedded_validation(weights: Tensor, losses: Tensor) -> float:
    """``mean(w·l) + η mean(w) - η`` with ``η = -Cov(w·l, w) / Var(w)`` (You et al. 2019, algorithm 1); lower is better.

    The control variate uses that the weights' mean is 1, which takes most of the variance away.

    Args:
        weights: density ratios of source validation rows ``(N,)``.
        losses: their losses ``(N,)``.
    """
    weighted = weights * losses
    variance = weights.var(correction=1)
    covariance = ((weighted - weighted.mean()) * (weights - weights.mean())).sum() / (len(weights) - 1)
    eta = -covariance / variance if variance > 0 else torch.zeros_like(variance)
    return (weighted.mean() + eta * weights.mean() - eta).item()
