"""Values by which models are told apart without target labels, and what they are computed from."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from bigopt.train.modes import evaluating
from bigopt.vocabulary.data import Split
from bigopt.vocabulary.run import INPUT, recording
from bigopt_plugins.transfer.domain_adaptation._dev import deep_embedded_validation, density_ratio

ROWS = 1024


@torch.no_grad()
def embed(model: nn.Module, head: str, split: Split, rows: int = ROWS, batch_size: int = 1024) -> tuple[Tensor, Tensor]:
    """What enters the head, and the logits, in evaluation mode: ``(N, F)`` and ``(N, K)``, float32 on the CPU.

    Args:
        model: takes raw inputs.
        head: name of the layer that gives the logits.
        split: its labels are not read.
        rows: evenly spaced rows that are used at most.
        batch_size: rows of one forward pass.
    """
    device = next(model.parameters()).device
    features, logits = [], []
    with evaluating(model), recording(model, [head + INPUT]) as seen:
        for index in places(split, rows).split(batch_size):
            logits.append(model(split.take(index).to(device)).float().cpu())
            features.append(seen[head + INPUT].flatten(1).float().cpu())
    return torch.cat(features), torch.cat(logits)


def places(split: Split, rows: int) -> Tensor:
    """At most so many evenly spaced positions."""
    return torch.linspace(0, len(split) - 1, min(rows, len(split))).long()


def dev_risk(model: nn.Module, head: str, train: Split, val: Split, target: Split) -> float:
    """The estimated cross-entropy on the target: source validation weighed by how target-like its features are.

    Args:
        model: to be judged.
        head: name of the layer that gives the logits.
        train: source training split, which the density ratio is fitted on.
        val: source validation split.
        target: target inputs.
    """
    features, logits = embed(model, head, val)
    weights = density_ratio(embed(model, head, train)[0], embed(model, head, target)[0], features)
    losses = functional.cross_entropy(logits, val.y[places(val, ROWS)], reduction="none").double()
    return deep_embedded_validation(weights, losses)


def agreement(a: Tensor, b: Tensor) -> float:
    """Share of the rows ``(N, K)`` for which both have the same class."""
    return (a.argmax(1) == b.argmax(1)).double().mean().item()
