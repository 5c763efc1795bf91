"""Which weights and activations of a model become integers, so that ONNX Runtime fuses them to integer kernels.

Activations are rounded where they are made, after the batch norm and the activation function that a kernel computes on
the way out: so every reader sees the same integers, and a residual addition runs on integers as well.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from torch import nn

from bigopt.vocabulary.patterns import fits
from bigopt_plugins.compression.quantization._calls import Call

CONVOLUTIONS = ("conv1d", "conv2d", "conv3d")
WEIGHTED = (*CONVOLUTIONS, "linear", "embedding")
KINDS = {"conv1d": nn.Conv1d, "conv2d": nn.Conv2d, "conv3d": nn.Conv3d, "linear": nn.Linear, "embedding": nn.Embedding}
CLIPPING = ("relu", "relu_", "relu6", "hardtanh", "hardtanh_")
ADDING = ("add", "add_", "__add__", "__iadd__", "mul", "mul_", "cat")
SAME_VALUES = (
    "max_pool1d max_pool2d view reshape flatten permute transpose t squeeze unsqueeze contiguous dropout dropout1d "
    "dropout2d feature_dropout alpha_dropout expand clone to float movedim unflatten"
).split()
PICKING = ("__getitem__", "chunk", "split", "unbind", "select", "narrow")
"""Operators that give some of the values as they are, and that runtimes do not move integers through."""


@dataclass(frozen=True)
class Layer:
    """A layer whose weight is rounded.

    Attributes:
        name: of the module.
        op: the function that takes the weight.
        norm: batch norm that is folded into it; None for none.
        input: key of the call that makes its input; None where that is no number (embeddings).
        width: dimensions of the input.
        first: whether its input is the network's.
        picked: whether its input is only some of what that call makes.
    """

    name: str
    op: str
    norm: str | None
    input: str | None
    width: int
    first: bool
    picked: bool = False

    @property
    def weight(self) -> str:
        """Name of the weight."""
        return f"{self.name}.weight"


@dataclass
class Plan:
    """What is rounded.

    Attributes:
        layers: by name, in order of execution.
        activations: keys of calls whose results are rounded with statically known steps.
        clipped: of those, the ones that are an activation function which clips to a range.
        left: names of layers that stay in float, with the reason.
    """

    layers: dict[str, Layer] = field(default_factory=dict)
    activations: list[str] = field(default_factory=list)
    clipped: dict[str, tuple[float, float]] = field(default_factory=dict)
    left: dict[str, str] = field(default_factory=dict)


def make_plan(model: nn.Module, calls: Sequence[Call], output: int, ignore: Sequence[str] = ()) -> Plan:
    """Reads off a survey what can be rounded.

    Args:
        model: that was surveyed.
        calls: the survey.
        output: position of the call that makes the output, which stays in float.
        ignore: name patterns of layers that are left.
    """
    plan = Plan()
    modules = dict(model.named_modules())
    graph = _Graph(calls, output, modules)
    for position, call in enumerate(calls):
        name = graph.layer(position)
        if name is None or fits(name, ignore):
            continue
        norm = graph.norm(position)
        source = graph.origin(call.sources[0]) if call.sources and call.op != "embedding" else None
        plan.layers[name] = Layer(
            name,
            call.op,
            calls[norm].parameters[0].rpartition(".")[0] if norm is not None else None,
            calls[source].key if source is not None else None,
            call.args[0].ndim,
            source is not None and graph.raw(source),
            source is not None and graph.picks(call.sources[0]),
        )
        if source is not None:
            graph.round(source)
        if call.op in CONVOLUTIONS:
            graph.round(graph.end(position))
    graph.round_additions()
    plan.activations = [calls[position].key for position in sorted(graph.rounded)]
    limits = {calls[position].key: _range(calls[position]) for position in sorted(graph.rounded)}
    plan.clipped = {key: limit for key, limit in limits.items() if limit is not None}
    plan.left = _left(model, plan, ignore, Counter(graph.refused))
    return plan


class _Graph:
    """A survey with what is decided of it so far."""

    def __init__(self, calls: Sequence[Call], output: int, modules: dict[str, nn.Module]) -> None:
        self.calls = calls
        self.output = self.origin(output)
        self.modules = modules
        self.rounded: set[int] = set()
        self.refused: list[str] = []
        self._uses = Counter(name for call in calls for name in call.parameters)
        self._owners = Counter(id(p) for module in modules.values() for p in module.parameters(recurse=False))

    def origin(self, position: int) -> int:
        """The call behind operators that only rearrange its values, or pick some."""
        while self.calls[position].op in (*SAME_VALUES, *PICKING) and self.calls[position].sources:
            position = self.calls[position].sources[0]
        return position

    def picks(self, position: int) -> bool:
        """Whether one of these operators picks some."""
        origin = self.origin(position)
        while position != origin and self.calls[position].op not in PICKING:
            position = self.calls[position].sources[0]
        return position != origin

    def raw(self, position: int) -> bool:
        """Whether a value is the network's input, at most normalised."""
        call = self.calls[position]
        return all(self.raw(source) for source in call.sources) and not call.parameters

    def layer(self, position: int) -> str | None:
        """Name of the layer that this call is, if its weight can be rounded."""
        call = self.calls[position]
        if call.op not in WEIGHTED or not call.parameters:
            return None
        name, _, leaf = call.parameters[0].rpartition(".")
        module = self.modules[name]
        fits = leaf == "weight" and isinstance(module, KINDS[call.op])
        if not fits or self._owners[id(module.weight)] > 1:
            self.refused.append(name)
            return None
        return name

    def norm(self, position: int) -> int | None:
        """The batch norm that is the only reader of a layer."""
        reader = self._only_reader(position)
        if reader is None or self.calls[reader].op != "batch_norm" or self.calls[position].op == "embedding":
            return None
        call = self.calls[reader]
        matrix = self.calls[position].op != "linear" or self.calls[position].out.ndim == 2
        tracked = len(call.args) > 2 and call.args[1] is not None and len(call.parameters) == 2
        once = self._uses[self.calls[position].parameters[0]] == self._uses[call.parameters[0]] == 1
        return reader if matrix and tracked and once else None

    def end(self, position: int) -> int:
        """The last call that a kernel computes together with this one."""
        norm = self.norm(position) if self.calls[position].op in WEIGHTED else None
        position = norm if norm is not None else position
        reader = self._only_reader(position)
        return reader if reader is not None and self.calls[reader].op in CLIPPING else position

    def round(self, position: int) -> None:
        """Rounds a value, unless it is the network's output or comes with others."""
        call = self.calls[position]
        if position != self.output and call.out.is_floating_point() and call.alone:
            self.rounded.add(position)

    def round_additions(self) -> None:
        """Rounds sums, products and joins of rounded values, which have integer kernels."""
        for position, call in enumerate(self.calls):
            sources = [self.origin(source) for source in call.sources]
            if call.op in ADDING and len(sources) > 1 and all(source in self.rounded for source in sources):
                self.round(self.end(position))

    def _only_reader(self, position: int) -> int | None:
        readers = self.calls[position].readers
        return readers[0] if len(readers) == 1 and position != self.output else None


def _range(call: Call) -> tuple[float, float] | None:
    """What an activation function clips to."""
    if call.op in ("relu", "relu_"):
        return 0.0, float("inf")
    if call.op == "relu6":
        return 0.0, 6.0
    return (float(call.args[1]), float(call.args[2])) if call.op in CLIPPING and len(call.args) > 2 else None


def _left(model: nn.Module, plan: Plan, ignore: Sequence[str], refused: Counter[str]) -> dict[str, str]:
    """Modules with matrices among their parameters that are not rounded."""
    left: dict[str, str] = {}
    for name, module in model.named_modules():
        matrices = [leaf for leaf, p in module.named_parameters(recurse=False) if p.ndim > 1]
        if not matrices or name in plan.layers:
            continue
        if fits(name, ignore):
            left[name] = "it matches ignore"
        elif isinstance(module, tuple(KINDS.values())):
            left[name] = (
                "its weight is shared with another module" if name in refused else "no call of its kind uses it"
            )
        else:
            left[name] = f"{', '.join(matrices)} of {type(module).__name__} is no weight that the method knows"
    return left
