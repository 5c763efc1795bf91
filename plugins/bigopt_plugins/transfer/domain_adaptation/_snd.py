"""SND: a label-free score of how well a model's target outputs cluster."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

TEMPERATURE = 0.05
ROWS = 2000


def soft_neighbourhood_density(logits: Tensor, temperature: float = TEMPERATURE, rows: int = ROWS) -> float:
    """Mean entropy of each row's similarities to the others (Saito et al. 2021, arXiv:2108.10860); higher is better.

    Similarities are cosines of softmax outputs, divided by the temperature and made a distribution over all other
    rows: a row with many close neighbours has a high entropy. At most ``ln(N - 1)``.

    Args:
        logits: target outputs ``(N, K)``, at least two rows.
        temperature: of the similarities' softmax.
        rows: evenly spaced rows that are used at most.
    """
    if len(logits) > rows:
        logits = logits[torch.linspace(0, len(logits) - 1, rows).long()]
    unit = functional.normalize(logits.float().softmax(1), dim=1)
    similar = unit @ unit.T / temperature
    apart = similar[~torch.eye(len(unit), dtype=torch.bool)].reshape(len(unit), -1)
    share = apart.log_softmax(1)
    return -(share.exp() * share).sum(1).mean().item()
