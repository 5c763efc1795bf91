"""Which of several source models suits the target best, without training on the target."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from bigopt.vocabulary.errors import RequestError
from bigopt.vocabulary.part import Fit
from bigopt.vocabulary.run import Run
from bigopt_plugins.transfer._features import features
from bigopt_plugins.transfer._layers import head_name, run_folder
from bigopt_plugins.transfer._source import Source, resolve

ITERATIONS = 100
"""Most fixed-point steps for each target; a handful is usual."""


def logme(x: Tensor, y: Tensor) -> float:
    """Log of the maximum evidence, per sample (LogME, You et al. 2021, arXiv:2102.11005, algorithm 1).

    Linear models ``y = f·w + noise`` with prior ``w ~ N(0, 1/α)`` and noise of precision β; α and β are chosen by
    MacKay's fixed point. Classes are taken as one-hot targets; the result is the mean over the targets.

    Args:
        x: features ``(N, F)``.
        y: labels ``(N,)`` int64, or targets ``(N, T)`` float.

    Returns:
        Larger is better; comparable between features of the same samples only.
    """
    x = x.double()
    targets = torch.nn.functional.one_hot(y).double() if not y.is_floating_point() else y.double().reshape(len(y), -1)
    u, s, _ = torch.linalg.svd(x, full_matrices=False)
    sigma = s**2
    scores = [_evidence(sigma, (u.T @ target) ** 2, float(target @ target), x.shape) for target in targets.T]
    return sum(scores) / len(scores)


def _evidence(sigma: Tensor, z2: Tensor, norm: float, shape: torch.Size) -> float:
    """Evidence of one target, by its squared projections ``z2`` on the features' left singular vectors."""
    n, d = shape
    outside = max(norm - float(z2.sum()), 0.0)  # what no linear model can reach
    alpha = beta = 1.0
    tiny = 1e-12
    for _ in range(ITERATIONS):
        shrunk = alpha / (alpha + beta * sigma)
        gamma = float((1 - shrunk).sum())
        m2 = float((beta**2 * sigma * z2 / (alpha + beta * sigma) ** 2).sum())
        residual = float((shrunk**2 * z2).sum()) + outside
        new = max(gamma / max(m2, tiny), tiny), max((n - gamma) / max(residual, tiny), tiny)
        done = abs(new[0] - alpha) <= 1e-9 * alpha and abs(new[1] - beta) <= 1e-9 * beta
        alpha, beta = new
        if done:
            break
    m2 = float((beta**2 * sigma * z2 / (alpha + beta * sigma) ** 2).sum())
    residual = float(((alpha / (alpha + beta * sigma)) ** 2 * z2).sum()) + outside
    a, b = torch.tensor(alpha, dtype=torch.float64), torch.tensor(beta, dtype=torch.float64)
    determinant = (a + b * sigma).log().sum() + (d - len(sigma)) * a.log()
    evidence = 0.5 * (
        n * b.log() + d * a.log() - determinant - b * residual - a * m2 - n * torch.log(torch.tensor(2 * torch.pi))
    )
    return float(evidence) / n


def best_source(run: Run, fit: Fit, sources: list[Any], epochs: int | None) -> tuple[str | Mapping[str, Any], Source]:
    """The source whose features give the target's training labels the greatest evidence; the table says all.

    Returns:
        what the configuration says about it, and the source.

    Raises:
        RequestError: no source, or one that cannot be used.
    """
    if not sources:
        raise RequestError("transfer.source: got an empty list, expected at least one source")
    found = [resolve(run, fit, source, epochs=epochs) for source in sources]
    scores = [logme(_flat(features(run, s.model, head_name(s.model), run.data.train)), run.data.train.y) for s in found]
    best = max(range(len(found)), key=scores.__getitem__)
    names = [str(run_folder(spec) or source.data.name) for spec, source in zip(sources, found, strict=True)]
    run.report.table(
        "logme",
        [
            {"source": name, "logme": score, "chosen": index == best}
            for index, (name, score) in enumerate(zip(names, scores, strict=True))
        ],
    )
    run.report.note(f"transfer: {names[best]} has the best LogME of {len(found)} sources ({scores[best]:.4f})")
    return sources[best], found[best]


def _flat(x: Tensor) -> Tensor:
    return x.flatten(1)
