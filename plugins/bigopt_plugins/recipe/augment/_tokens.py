"""Texts with holes."""

from __future__ import annotations

import torch
from torch import Tensor


def drop_tokens(x: Tensor, share: float, pad_id: int) -> Tensor:
    """Token ids with random ones replaced by padding, as in word dropout (Iyyer et al. 2015).

    The first token stays: it is where classifiers look.

    Args:
        x: ``(N, L)``.
        share: probability of each token to go, in [0, 1).
        pad_id: what takes its place.
    """
    gone = torch.rand(x.shape, device=x.device) < share
    gone[:, 0] = False
    return x.masked_fill(gone, pad_id)
