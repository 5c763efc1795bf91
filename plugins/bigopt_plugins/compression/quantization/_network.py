"""A network whose weights and activations are rounded as it computes, its modules being left as they are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor, nn

from bigopt.vocabulary.network import Network
from bigopt_plugins.compression.quantization._calibration import Sample
from bigopt_plugins.compression.quantization._calls import INPUT, Arguments, Calls
from bigopt_plugins.compression.quantization._lsq import compiled_loops
from bigopt_plugins.compression.quantization._plan import Layer, Plan
from bigopt_plugins.compression.quantization._quantizers import ActivationQuantizer, WeightQuantizer, dynamic

State = Literal["float", "observe", "fake", "integers"]


class QuantizedNetwork(Network):
    """A network with quantizers beside it. Modules, parameters and their names are those of the original.

    Attributes:
        plan: what is rounded.
        weights: quantizers by a layer's name (dots as slashes).
        activations: quantizers by a call's key (dots as slashes).
        state: ``float`` rounds nothing, ``observe`` lets samples look, ``fake`` rounds in floats with gradients,
            ``integers`` computes with the operators of integer graphs.
        samples: what looks at activations, by key, while the state is ``observe``.
        dynamic: whether inputs of convolutions and linear layers are rounded over the range of each batch.
        folded: batch norms that are not computed any more, since their layers do what they did.

    Args:
        original: whose modules are taken over.
        plan: what is rounded.
    """

    def __init__(self, original: Network, plan: Plan) -> None:
        super().__init__(original.net, original.normalize, original.pad_id)
        self.train(original.training)
        self.changes = original.changes
        self.plan = plan
        self.weights = nn.ModuleDict()
        self.activations = nn.ModuleDict()
        self.state: State = "float"
        self.samples: dict[str, Sample] = {}
        self.dynamic = False
        self.folded: set[str] = set()

    @torch.compiler.disable  # a compiler would not see the calls
    def forward(self, x: Tensor) -> Tensor:
        """Logits, as the original gives them but for rounding."""
        if self.state == "float" and not self.folded:
            return super().forward(x)
        mode = Rounding(self)
        x = mode.made(INPUT, x)  # before the mode sees calls: those that round are none of the network's
        with mode:
            return super().forward(x)

    def compiled(self) -> Callable[[Tensor], Tensor]:
        """The network with its rounding as compiled loops, which is where most of a step's time goes otherwise."""

        def call(x: Tensor) -> Tensor:
            with compiled_loops():
                logits: Tensor = self(x)
            return logits

        return call

    def requires_grad_learned(self) -> None:
        """Lets the steps be trained."""
        for name, parameter in self.named_parameters():
            if name.startswith(("weights.", "activations.")):
                parameter.requires_grad_(True)

    def weight_quantizer(self, layer: str) -> WeightQuantizer | None:
        """What rounds a layer's weight."""
        name = slashed(layer)
        found = self.weights[name] if name in self.weights else None
        assert found is None or isinstance(found, WeightQuantizer)
        return found

    def activation_quantizer(self, key: str) -> ActivationQuantizer | None:
        """What rounds the result of a call."""
        name = slashed(key)
        found = self.activations[name] if name in self.activations else None
        assert found is None or isinstance(found, ActivationQuantizer)
        return found

    def weight_of(self, layer: Layer) -> Tensor:
        """A layer's weight, unrounded."""
        weight = self.get_submodule(layer.name).weight
        assert isinstance(weight, Tensor)
        return weight

    def norm_of(self, layer: Layer) -> nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d | None:
        """The batch norm that is still to be folded into a layer."""
        if layer.norm is None or layer.norm in self.folded:
            return None
        norm = self.get_submodule(layer.norm)
        assert isinstance(norm, nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d)
        return norm


class Rounding(Calls):
    """Rounds what the calls of one forward pass take and give."""

    def __init__(self, network: QuantizedNetwork) -> None:
        super().__init__(dict(network.named_parameters()))
        self.network = network
        self.layers = {layer.weight: layer for layer in network.plan.layers.values()}
        self.norms = {f"{layer.norm}.weight" for layer in self.layers.values() if layer.norm is not None}
        self.rounds = network.state in ("fake", "integers")
        self._dynamic: dict[int, tuple[Tensor, Tensor]] = {}

    def call(self, key: str, op: str, func: Callable[..., Any], args: Arguments, kwargs: dict[str, Any]) -> Any:
        """The call with a rounded weight, and its rounded result."""
        used = self.used(args, kwargs)
        layer = self.layers.get(used[0]) if used and self.rounds else None
        if layer is not None and layer.op == op:
            out = self._layer(layer, func, args, kwargs)
        elif used and used[0] in self.norms:
            out = self._norm(used[0].rpartition(".")[0], func, args, kwargs)
        elif self._absorbed(key):
            out = args[0]
        else:
            out = func(*args, **kwargs)
        return self.made(key, out)

    def made(self, key: str, out: Any) -> Any:
        """Rounds the result of a call, where the plan says so."""
        if self.network.state == "observe":
            if key in self.network.samples:
                self.network.samples[key].add(out)
            return out
        quantizer = self.network.activation_quantizer(key) if self.rounds else None
        if quantizer is None:
            return out
        return quantizer.as_integers(out) if self.network.state == "integers" else quantizer(out)

    def _layer(self, layer: Layer, func: Callable[..., Any], args: Arguments, kwargs: dict[str, Any]) -> Any:
        quantizer = self.network.weight_quantizer(layer.name)
        if quantizer is None:
            return func(*args, **kwargs)
        x, weight = args[:2]
        if layer.op == "embedding" and self.network.state == "integers":
            return quantizer.looked_up(x)
        if layer.op != "embedding" and self.network.dynamic:
            x = self._rounded_dynamically(x)
        if self.network.state != "integers":
            return func(x, quantizer(weight), *args[2:], **kwargs)
        given = self.network.activation_quantizer(layer.input) if layer.picked and layer.input is not None else None
        x = given.as_integers(x) if given is not None else x  # the same integers, next to the layer
        weight = quantizer.dequantized()
        if not quantizer.transpose:
            return func(x, weight, *args[2:], **kwargs)
        bias = args[2] if len(args) > 2 else kwargs.get("bias")
        out = torch.matmul(x, weight)
        return out if bias is None else out + bias

    def _norm(self, name: str, func: Callable[..., Any], args: Arguments, kwargs: dict[str, Any]) -> Any:
        """A batch norm with a positive scale, as folding needs it; one that is folded does nothing."""
        if name in self.network.folded:
            return args[0]
        scale = f"{name}.weight"
        args = tuple(value.abs() if self.names.get(id(value)) == scale else value for value in args)
        return func(*args, **{k: v.abs() if self.names.get(id(v)) == scale else v for k, v in kwargs.items()})

    def _absorbed(self, key: str) -> bool:
        """Whether an activation function does nothing that rounding its result does not do."""
        if self.network.state != "integers" or key not in self.network.plan.clipped:
            return False
        quantizer = self.network.activation_quantizer(key)
        return quantizer is not None and quantizer.absorbs(*self.network.plan.clipped[key])

    def _rounded_dynamically(self, x: Tensor) -> Tensor:
        """An input rounded over its own range, once for all its readers."""
        if id(x) not in self._dynamic:
            self._dynamic[id(x)] = x, dynamic(x)
        return self._dynamic[id(x)][1]


def slashed(name: str) -> str:
    """A name as a module's key, which may hold no dots."""
    return name.replace(".", "/")
