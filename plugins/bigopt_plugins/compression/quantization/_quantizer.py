"""Which values of an exported graph become integers, so that ONNX Runtime fuses them to integer kernels.

torchao's quantizers for x86 leave residual additions in float; here a convolution, linear layer, addition or mean is
always quantized at its inputs, and at its output after the activation that ONNX Runtime folds into it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fnmatch import fnmatch
from typing import Any

import torch
from torch.fx import Node
from torchao.quantization.pt2e.quantizer import (
    QuantizationAnnotation,
    QuantizationSpec,
    Quantizer,
    SharedQuantizationSpec,
)

aten = torch.ops.aten

WEIGHTED = {aten.conv1d.default, aten.conv2d.default, aten.linear.default}
ADDITIVE = {aten.add.Tensor, aten.add_.Tensor}
POOLING = {aten.adaptive_avg_pool2d.default, aten.avg_pool2d.default, aten.mean.dim}
FOLDED = {aten.relu.default, aten.relu_.default, aten.hardtanh.default, aten.hardtanh_.default, aten.relu6.default}
JOINING = {aten.cat.default}
SAME_VALUES = {
    aten.max_pool2d.default,
    aten.flatten.using_ints,
    aten.view.default,
    aten.reshape.default,
    aten.dropout.default,
    aten.permute.default,
    aten.transpose.int,
    aten.squeeze.dims,
}


class IntegerKernels(Quantizer):  # type: ignore[misc]
    """Marks convolutions, linear layers, additions, means and concatenations of a graph for quantization.

    Args:
        activation: specification of activations.
        weight: specification of weights of convolutions and linear layers.
        ignore: name patterns of modules that stay in float.
    """

    def __init__(self, activation: QuantizationSpec, weight: QuantizationSpec, ignore: Sequence[str] = ()) -> None:
        super().__init__()
        self.activation = activation
        self.weight = weight
        self.ignore = tuple(ignore)
        self.quantized: list[str] = []
        self.left_in_float: list[str] = []

    def annotate(self, model: torch.fx.GraphModule) -> torch.fx.GraphModule:
        """Annotates every node that an integer kernel exists for."""
        outputs = {node for out in model.graph.nodes if out.op == "output" for node in out.all_input_nodes}
        for node in model.graph.nodes:
            if node.op != "call_function" or not _is_float(node):
                continue
            if any(fnmatch(module_name(node), pattern) for pattern in self.ignore):
                if node.target in WEIGHTED:
                    self.left_in_float.append(module_name(node))
                continue
            self._annotate_node(node, outputs)
        return model

    def validate(self, model: torch.fx.GraphModule) -> None:
        """Nothing to check: every annotation made above is one that the exporter can write."""

    def _annotate_node(self, node: Node, outputs: set[Node]) -> None:
        if node.target in WEIGHTED:
            inputs: dict[Node, Any] = {_argument(node, 0): self.activation, _argument(node, 1): self.weight}
            self.quantized.append(module_name(node))
        elif node.target in ADDITIVE and all(isinstance(a, Node) and _is_float(a) for a in node.args[:2]):
            inputs = {_argument(node, 0): self.activation, _argument(node, 1): self.activation}
        elif node.target in POOLING:
            inputs = {_argument(node, 0): self.activation}
        elif node.target in JOINING:
            inputs = {part: self.activation for part in node.args[0]}  # type: ignore[union-attr]
        elif node.target in SAME_VALUES and _is_quantized(_argument(node, 0)):
            source = _argument(node, 0)
            shared = SharedQuantizationSpec((source, node))
            _mark(node, {source: self.activation}, shared)
            return
        else:
            return
        last = _folded_into(node, FOLDED)
        if last is not node:
            _mark(node, inputs, None)
            node = last
            inputs = {}
        # Logits stay in float: nothing would read the integers.
        _mark(node, inputs, None if node in outputs else self.activation)


def module_name(node: Node) -> str:
    """Name of the module that this node came from; the node's own name where the graph does not say."""
    stack = node.meta.get("nn_module_stack") or {}
    names = [name for name, _ in stack.values() if name]
    return str(names[-1]) if names else node.name


def _argument(node: Node, position: int) -> Node:
    argument = node.args[position]
    assert isinstance(argument, Node)
    return argument


def _is_float(node: Node) -> bool:
    value = node.meta.get("val")
    return isinstance(value, torch.Tensor) and value.is_floating_point()


def _is_quantized(node: Node) -> bool:
    annotation = node.meta.get("quantization_annotation")
    return annotation is not None and annotation.output_qspec is not None


def _folded_into(node: Node, activations: set[Callable[..., Any]]) -> Node:
    """The activation that is this node's only reader, which a kernel computes on the way out; else the node itself."""
    readers = list(node.users)
    return readers[0] if len(readers) == 1 and readers[0].target in activations else node


def _mark(node: Node, inputs: dict[Node, Any], output: Any) -> None:
    node.meta["quantization_annotation"] = QuantizationAnnotation(
        input_qspec_map=inputs, output_qspec=output, _annotated=True
    )
