"""DEV: the target's risk, estimated on source validation by weighing rows that look like the target."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

STEPS = 30
DECAY = 1e-3


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
    x = (both - mean) / std
    domain = torch.cat([torch.zeros(len(source)), torch.ones(len(target))]).double()
    with torch.enable_grad():
        weight = torch.zeros(x.shape[1], dtype=torch.float64, requires_grad=True)
        bias = torch.zeros((), dtype=torch.float64, requires_grad=True)
        optimizer = torch.optim.LBFGS([weight, bias], max_iter=STEPS, line_search_fn="strong_wolfe")

        def closure() -> Tensor:
            optimizer.zero_grad()
            loss = functional.binary_cross_entropy_with_logits(x @ weight + bias, domain)
            loss = loss + DECAY * weight.square().sum()
            loss.backward()
            return loss

        optimizer.step(closure)  # type: ignore[no-untyped-call]
    log_odds = ((query.double() - mean) / std) @ weight.detach() + bias.detach()
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
