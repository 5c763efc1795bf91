"""A transfer plugin: a Part that acts while the model is trained; its typed signature is its configuration."""

from __future__ import annotations

from torch import Tensor, nn

from bigopt import Batch, Fit, Output, Part, RequestError, Run


class Start(nn.Module):
    """The weights from which training started; being buffers, they move and are checkpointed with the model."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.names = {name: name.replace(".", "/") for name, _ in model.named_parameters()}
        for name, parameter in model.named_parameters():
            self.register_buffer(self.names[name], parameter.detach().clone())

    def distance(self, model: nn.Module) -> Tensor:
        """Squared distance ``()`` of a model's trainable weights from the start."""
        terms = [
            (parameter - self.get_buffer(self.names[name])).square().sum()
            for name, parameter in model.named_parameters()
            if name in self.names and parameter.requires_grad
        ]
        total: Tensor = sum(terms[1:], terms[0])
        return total


class MyPlugin(Part):
    """Pulls the weights towards those that the model came with (L2-SP, Li et al. 2018, arXiv:1802.01483).

    Give the model something to start from: ``model.weights``.

    Args:
        alpha: weight of half the squared distance, 0 or more.

    Raises:
        RequestError: an argument is out of range.
    """

    def __init__(self, alpha: float = 0.01) -> None:
        if alpha < 0:
            raise RequestError(f"alpha: got {alpha}, expected 0 or more")
        self.alpha = alpha
        self._start: Start | None = None

    def prepare(self, run: Run, fit: Fit) -> None:
        """Keeps the weights as they are now."""
        self._start = Start(run.model)

    def modules(self, run: Run) -> dict[str, nn.Module]:
        """The kept weights."""
        return {} if self._start is None else {"start": self._start}

    def loss(self, run: Run, batch: Batch, output: Output) -> dict[str, Tensor]:
        """``alpha / 2 · ‖w − w₀‖²``; a compressed model has other weights, and no pull."""
        if self._start is None or run.baseline is not None:
            return {}
        return {"l2_sp": self.alpha / 2 * self._start.distance(run.model)}
