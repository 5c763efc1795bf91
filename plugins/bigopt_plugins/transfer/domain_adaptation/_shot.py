"""SHOT: source-free; the head stays, the features move until its answers on the target are certain and diverse."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from bigopt_plugins.transfer.domain_adaptation._cdan import entropy

SMOOTHING = 0.1
"""Label smoothing of the source model (Liang et al. 2020, eq. 1)."""

BETA = 0.3
"""Weight of the pseudo-labels (Liang et al. 2020, section 4)."""


def information(logits: Tensor) -> Tensor:
    """``mean H(p_i) - H(mean p)`` of ``(N, K)`` (Liang et al. 2020, eq. 2): certain alone, diverse together."""
    probabilities = logits.softmax(1)
    return entropy(probabilities).mean() - entropy(probabilities.mean(0, keepdim=True)).squeeze()


def pseudo_labels(features: Tensor, probabilities: Tensor) -> Tensor:
    """Class of the nearest centroid, by cosine distance, for every row (Liang et al. 2020, eq. 4 to 6).

    Centroids are means weighted by the probabilities, then means of the rows that came nearest to each; a class that
    no row came nearest to keeps its first centroid.

    Args:
        features: ``(N, F)``.
        probabilities: ``(N, K)``.

    Returns:
        ``(N,)`` int64.
    """
    unit = functional.normalize(features, dim=1)
    centroids = _centroids(features, probabilities)
    labels = (unit @ functional.normalize(centroids, dim=1).T).argmax(1)
    chosen = functional.one_hot(labels, probabilities.shape[1]).to(features.dtype)
    present = (chosen.sum(0) > 0).unsqueeze(1)
    centroids = torch.where(present, _centroids(features, chosen), centroids)
    return (unit @ functional.normalize(centroids, dim=1).T).argmax(1)


def _centroids(features: Tensor, weight: Tensor) -> Tensor:
    return weight.T @ features / weight.sum(0).clamp_min(1e-8).unsqueeze(1)


def shot(logits: Tensor, labels: Tensor | None) -> dict[str, Tensor]:
    """Terms of source hypothesis transfer (Liang et al. 2020, arXiv:2002.08546).

    Args:
        logits: of target rows ``(N, K)``.
        labels: their pseudo-labels ``(N,)``; None before there are any.
    """
    terms = {"information": information(logits)}
    if labels is not None:
        terms["pseudo"] = BETA * functional.cross_entropy(logits, labels)
    return terms
