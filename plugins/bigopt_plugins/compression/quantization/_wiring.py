"""How the layers of an eager model are wired, read off its exported graph."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import Node

from bigopt.train.modes import evaluating
from bigopt.vocabulary.errors import RequestError

aten = torch.ops.aten

CONVOLUTIONS = (aten.conv1d.default, aten.conv2d.default)
WEIGHTED = (*CONVOLUTIONS, aten.linear.default)

Hook = Callable[[Tensor, Tensor], None]


class Wiring:
    """Which layer reads the output of which.

    Layers are told by the parameters that an operator reads, so that only what really computes with a layer's own
    weight counts: a weight that is shared, or computed from something else, belongs to no layer.

    Args:
        model: eager; exported once in evaluation mode, left as it was.
        example: raw input ``(N, …)``.

    Raises:
        RequestError: the model cannot be exported.
    """

    def __init__(self, model: nn.Module, example: Tensor) -> None:
        try:
            with evaluating(model), torch.no_grad(), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                program = torch.export.export(model, (example,), strict=False)
        except Exception as error:
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise RequestError(f"quantization: the model's graph cannot be read: {reason}") from error
        self.nodes: list[Node] = [node for node in program.graph.nodes if node.op == "call_function"]
        self._parameters = dict(program.graph_signature.inputs_to_parameters)
        self._reads = Counter(
            given.name for node in self.nodes for given in set(node.all_input_nodes) if given.name in self._parameters
        )
        self._calls = Counter(self.module(node) for node in self.nodes)

    def layer(self, node: Node) -> str | None:
        """Name of the layer that this convolution, linear layer or norm is; None where its weight is no layer's own."""
        position = 2 if node.target is aten.layer_norm.default else 1
        weight = node.args[position] if len(node.args) > position else None
        if not isinstance(weight, Node) or self._reads[weight.name] != 1:
            return None
        name = self._parameters.get(weight.name)
        return name.removesuffix(".weight") if name is not None and name.endswith(".weight") else None

    def layers(self, targets: Collection[Any]) -> Iterator[tuple[Node, str]]:
        """Calls of these operators with the layer behind each, in the order of execution."""
        for node in self.nodes:
            if node.target in targets:
                name = self.layer(node)
                if name is not None:
                    yield node, name

    def module(self, node: Node) -> str:
        """Name of the innermost module that this operator is in."""
        stack = [name for name, _ in (node.meta.get("nn_module_stack") or {}).values()]
        return str(stack[-1]) if stack else ""

    def alone(self, node: Node) -> str | None:
        """Name of the module that does nothing but this operator, once; None if there is none."""
        name = self.module(node)
        return name if self._calls[name] == 1 else None


@torch.no_grad()
def watch(model: nn.Module, hooks: Mapping[str, Hook], samples: Tensor, batch_size: int) -> None:
    """Runs the model in evaluation mode over all samples, and lets each hook look at its layer.

    Args:
        model: eager.
        hooks: by the layer's name: called with what the layer took (its first input) and what it gave.
        samples: raw inputs ``(N, …)``.
        batch_size: rows per forward pass.
    """

    def look(hook: Hook) -> Any:
        return lambda _layer, inputs, output: hook(inputs[0], output)

    handles = [model.get_submodule(name).register_forward_hook(look(hook)) for name, hook in hooks.items()]
    try:
        with evaluating(model):
            for rows in samples.split(batch_size):
                model(rows)
    finally:
        for handle in handles:
            handle.remove()


def put(model: nn.Module, name: str, module: nn.Module) -> None:
    """Puts a module in the place of another one, in that one's mode."""
    model.set_submodule(name, module.train(model.get_submodule(name).training))
