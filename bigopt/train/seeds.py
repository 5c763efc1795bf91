"""Every random choice of a fit follows from the run's seed and the fit's ordinal, so that nothing before matters."""

from __future__ import annotations

import hashlib
import random


def derive(seed: int, *path: int | str) -> int:
    """A seed of 63 bits for one purpose: the same path gives the same seed, another path an unrelated one."""
    text = "/".join(str(part) for part in (seed, *path))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def seed_all(seed: int, ordinal: int, *path: int | str) -> int:
    """Seeds Python, NumPy and torch (all devices) for a fit, and gives back the derived seed.

    Args:
        seed: the run's seed.
        ordinal: number of the fit in its run.
        path: what else tells two seeds of one fit apart (the rank, the time after the fit).
    """
    import numpy as np
    import torch

    derived = derive(seed, ordinal, *path)
    random.seed(derived)
    np.random.seed(derived % 2**32)
    torch.manual_seed(derived)
    return derived
