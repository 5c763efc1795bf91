"""Sparse variational dropout."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from bigopt.vocabulary.batch import Batch, Output
from bigopt.vocabulary.errors import RequestError
from bigopt.vocabulary.objective import Monitor
from bigopt.vocabulary.part import Fit, Part
from bigopt.vocabulary.run import Run
from bigopt_plugins.compression._held import KeepZeros
from bigopt_plugins.compression._layers import swap, total_steps, weight_of, weighted_layers
from bigopt_plugins.compression._noisy import NoisyLayer, Warm, kl_divergence
from bigopt_plugins.compression._weights import network

OBJECTIVE = "variational_dropout/objective"


class VariationalDropout(Part):
    """Learns one noise level per weight and drops the weights that are only noise (Molchanov et al. 2017).

    arXiv:1701.05369. Each weight of a convolution or linear layer is ``w = θ + σ·ε``, ε standard normal, with
    ``σ² = αθ²``; θ and ``log σ²`` are trained by ``loss + kl_weight · KL/N`` for N training samples, where

        KL ≈ −Σ (k1·σ(k2 + k3·log α) − ½·log(1 + 1/α) − k1),  k1 = 0.63576, k2 = 1.87320, k3 = 1.48695,

    and the KL is warmed up, so that weights are not dropped before they could learn. Outputs, not weights, are drawn
    (local reparametrisation). In the end weights with ``log α ≥ threshold`` are 0 and the others θ, in a plain model:
    non-zeros and compressed bytes fall, latency does not. The epoch that is kept is the one with the least loss on
    validation plus KL at full weight.

    Args:
        threshold: log α from which a weight is dropped (3: more than 95% dropout).
        kl_weight: factor on ``KL/N``: 1 is the paper's. Null takes ``min(1, N/|θ|)``, since with fewer samples than
            weights the KL outweighs whatever the samples say.
        warmup: share of the steps over which the KL rises from 0 to its weight.
        log_alpha: of all weights at the start; -8 is nearly no noise.
        noise_lr: peak learning rate of log σ²; null lets a weight be dropped in a fifth of the fit (an optimizer of
            the Adam family is assumed).

    Raises:
        RequestError: an argument is out of range, or the model has no layer that could be noisy.
    """

    space: ClassVar[dict[str, str]] = {"threshold": "interval(1.0,4.0)"}

    def __init__(
        self,
        threshold: float = 3.0,
        kl_weight: float | None = None,
        warmup: float = 0.5,
        log_alpha: float = -6.0,
        noise_lr: float | None = None,
    ) -> None:
        problems = []
        if not -8 < threshold < 8:
            problems.append(f"threshold: got {threshold}, expected a number between -8 and 8")
        if not -8 <= log_alpha < threshold:
            problems.append(f"log_alpha: got {log_alpha}, expected a number from -8 to under the threshold {threshold}")
        if not 0 <= warmup <= 1:
            problems.append(f"warmup: got {warmup}, expected a share in [0, 1]")
        for name, value in (("kl_weight", kl_weight), ("noise_lr", noise_lr)):
            if value is not None and value <= 0:
                problems.append(f"{name}: got {value}, expected a positive number")
        if problems:
            raise RequestError(problems)
        self.threshold = threshold
        self.kl_weight = kl_weight
        self.warmup = warmup
        self.log_alpha = log_alpha
        self.noise_lr = noise_lr
        # Of the step in progress, built anew by prepare; what must last is in the modules.
        self._warm: Warm | None = None
        self._layers: tuple[str, ...] = ()
        self._monitor: Monitor | None = None

    def epochs(self, run: Run) -> int:
        """As many as the first stage had: noise needs time to grow."""
        return run.settings.trainer.max_epochs

    def prepare(self, run: Run, fit: Fit) -> None:
        """Makes the weights noisy.

        Raises:
            RequestError: no layer can be, or ``strict`` and one cannot.
        """
        model = network(run, "variational_dropout")
        layers = weighted_layers(run)
        swap(model, {layer: NoisyLayer(layer, self.log_alpha, self.threshold) for layer in layers.values()})
        self._layers = tuple(layers)
        self._warm = Warm()
        self._monitor, run.monitor = run.monitor, Monitor(OBJECTIVE, "min")

    def modules(self, run: Run) -> dict[str, nn.Module]:
        """How far the warm-up is, so that it is checkpointed."""
        return {} if self._warm is None else {"variational_dropout": self._warm}

    def loss(self, run: Run, batch: Batch, output: Output) -> dict[str, Tensor]:
        """``kl_weight · KL/N`` as far as it is warm."""
        if self._warm is None:
            return {}
        return {"variational_dropout_kl": self._warm.share * self.divergence(run)}

    def divergence(self, run: Run) -> Tensor:
        """``kl_weight · KL/N`` of the whole model."""
        layers, samples = noisy(run.model), len(run.data.train)
        weight = self.kl_weight
        if weight is None:
            weight = min(1.0, samples / sum(layer.theta.numel() for layer in layers))
        return torch.stack([kl_divergence(layer.log_alpha()).sum() for layer in layers]).sum() * (weight / samples)

    def param_groups(self, run: Run, groups: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Noise has its own rate and no decay."""
        noise = [layer.log_sigma2 for layer in noisy(run.model)]
        if not noise:
            return groups
        own = {id(parameter) for parameter in noise}
        rest = [{**group, "params": [p for p in group["params"] if id(p) not in own]} for group in groups]
        return [*rest, {"params": noise, "lr": self._noise_lr(run), "weight_decay": 0.0}]

    def callbacks(self, run: Run) -> list[Any]:
        """What happens between the steps."""
        if self._warm is None:
            return []
        from bigopt_plugins.compression._warming import Warming

        return [Warming(self._warm, self.warmup, OBJECTIVE, lambda: float(self.divergence(run).detach()))]

    def finish(self, run: Run, fit: Fit) -> None:
        """Leaves a plain model in which the dropped weights are 0, also while later steps train."""
        model = network(run, "variational_dropout")
        if self._monitor is not None:
            run.monitor, self._monitor = self._monitor, None
        with torch.no_grad():
            for layer in noisy(model):
                layer.theta.copy_(layer.weight)
        swap(model, {layer: layer.layer for layer in noisy(model)})
        self._warm = None
        run.parts.append(KeepZeros(tuple(f"{name}.weight" for name in self._layers)))
        self._tell(run, model)

    def _tell(self, run: Run, model: nn.Module) -> None:
        weights = {name: weight_of(model.get_submodule(name)) for name in self._layers}
        rows = [{"layer": name, "weights": w.numel(), "nonzero": int(w.count_nonzero())} for name, w in weights.items()]
        total = sum(weight.numel() for weight in weights.values())
        left = sum(int(weight.count_nonzero()) for weight in weights.values())
        run.report.table("variational_dropout", rows)
        run.report.value("sparsity", 1 - left / total)
        run.report.note(
            f"{total - left:,} of {total:,} weights were dropped: non-zeros and compressed bytes change, MACs and "
            "latency do not, since kernels are dense"
        )

    def _noise_lr(self, run: Run) -> float:
        if self.noise_lr is not None:
            return self.noise_lr
        epochs = run.options.recover.epochs
        steps = total_steps(run, self.epochs(run) if epochs is None else epochs)
        return min(0.5, 5 * (self.threshold - self.log_alpha) / steps)


def noisy(model: nn.Module) -> list[NoisyLayer]:
    """The noisy layers of a model."""
    return [module for module in model.modules() if isinstance(module, NoisyLayer)]
