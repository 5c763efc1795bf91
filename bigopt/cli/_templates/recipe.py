"""A recipe plugin: a Part that changes how models are trained; its typed signature is its configuration."""

from __future__ import annotations

import torch

from bigopt import Batch, Part, RequestError, Run


class MyPlugin(Part):
    """Adds Gaussian noise to every training input (Bishop 1995).

    Args:
        noise: standard deviation, in the data's own unit; 0 for none.

    Raises:
        RequestError: an argument is out of range.
    """

    def __init__(self, noise: float = 0.05) -> None:
        if noise < 0:
            raise RequestError(f"noise: got {noise}, expected 0 or more")
        self.noise = noise

    def batch(self, run: Run, batch: Batch) -> Batch:
        """The batch with noisy inputs; token ids pass unchanged."""
        if not self.noise or not batch.x.is_floating_point():
            return batch
        noisy: Batch = batch.with_(x=batch.x + self.noise * torch.randn_like(batch.x))
        return noisy
