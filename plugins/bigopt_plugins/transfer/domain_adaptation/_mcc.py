"""MCC: pairs of classes that target predictions confuse are pulled apart."""

from __future__ import annotations

import torch
from torch import Tensor

from bigopt_plugins.transfer.domain_adaptation._cdan import entropy
from bigopt_plugins.transfer.domain_adaptation._step import Step

TEMPERATURE = 2.5


def class_confusion(logits: Tensor, temperature: float = TEMPERATURE) -> Tensor:
    """Minimum class confusion of target logits ``(N, K)`` (Jin et al. 2020, eq. 2 to 7).

    ``Ŷ = softmax(Z / T)``; ``W_ii = N (1 + exp(-H(ŷ_i))) / Σ (1 + exp(-H))``; ``C = Ŷᵀ W Ŷ`` with rows scaled to sum 1;
    the loss is what lies off the diagonal, over K.
    """
    probabilities = (logits / temperature).softmax(1)
    weight = 1 + torch.exp(-entropy(probabilities.detach()))
    weight = weight * (len(logits) / weight.sum())
    confusion = (probabilities * weight.unsqueeze(1)).T @ probabilities
    confusion = confusion / confusion.sum(1, keepdim=True)
    return (confusion.sum() - confusion.diagonal().sum()) / logits.shape[1]


def mcc(step: Step) -> Tensor:
    """Minimum class confusion (Jin et al. 2020, arXiv:1912.03699)."""
    return class_confusion(step.target_logits)
