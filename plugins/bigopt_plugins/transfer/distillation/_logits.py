"""Answers of several teachers as those of one, and what each counts for."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from bigopt.vocabulary.data import TaskName

ITERATIONS = 200
"""Of the mixture's expectation maximisation; it converges to the only maximum there is."""


def mixture(answers: Sequence[Tensor], weights: Sequence[float], temperature: float, task: TaskName) -> Tensor:
    """Logits whose softmax at this temperature is the weighted mean of the teachers' (Hinton et al. 2015).

    Args:
        answers: logits ``(N, K)`` or predictions ``(N, T)`` of each teacher.
        weights: of the teachers, sum 1.
        temperature: T at which they are compared with the student's.
        task: for regression the weighted mean of the predictions.

    Returns:
        ``(N, K)`` or ``(N, T)``; the answers themselves where there is one teacher.
    """
    if len(answers) == 1:
        return answers[0]
    if task == "regression":
        return torch.stack([weight * answer for weight, answer in zip(weights, answers, strict=True)]).sum(0)
    logs = [
        torch.log_softmax(answer / temperature, 1) + math.log(weight)
        for weight, answer in zip(weights, answers, strict=True)
        if weight > 0
    ]
    return temperature * torch.logsumexp(torch.stack(logs), 0)


def by_validation(answers: Sequence[Tensor], y: Tensor, task: TaskName) -> list[float]:
    """Weights of the teachers that suit the validation split best.

    Classification: those under which the mixture of their probabilities has the highest likelihood (stacking, Yao et
    al. 2018, arXiv:1704.02030), found by expectation maximisation. Regression: one over the squared error (Bates
    and Granger 1969).

    Args:
        answers: logits ``(N, K)`` or predictions ``(N, T)`` of each teacher.
        y: labels ``(N,)`` or targets ``(N, T)``.
        task: which of the two.
    """
    if task == "regression":
        errors = [max(1e-12, (answer - y.reshape(answer.shape)).square().mean().item()) for answer in answers]
        return [1 / error / sum(1 / other for other in errors) for error in errors]
    likely = torch.stack([torch.softmax(answer.double(), 1).gather(1, y[:, None])[:, 0] for answer in answers])
    weights = torch.full((len(answers), 1), 1 / len(answers), dtype=torch.float64)
    for _ in range(ITERATIONS):
        share = weights * likely
        weights = (share / share.sum(0).clamp_min(1e-300)).mean(1, keepdim=True)
    return [float(weight) for weight in (weights / weights.sum())[:, 0]]
