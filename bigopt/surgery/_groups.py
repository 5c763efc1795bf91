"""Groups of channels that can only be removed together, found by tracing (DepGraph, Fang et al. 2023)."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from bigopt.surgery._attention import Attention, attention_blocks, shrink_attention
from bigopt.surgery._layout import Layout
from bigopt.surgery._trial import failing
from bigopt.vocabulary.errors import RequestError
from bigopt.vocabulary.network import Network
from bigopt.vocabulary.patterns import fits

PRUNABLE = (nn.Conv1d, nn.Conv2d, nn.Linear)


@dataclass
class ChannelGroup:
    """Channels of one or more layers that a residual, a concatenation or attention ties together.

    Attributes:
        name: name of the group's root layer, as in ``model.named_modules()``.
        layers: names of all layers that lose output channels with the root.
        channels: number of output channels of the root.
        unit: channels that go together (the head size in attention, 1 elsewhere).
        raw: torch-pruning's own group over all channels, for its importance criteria.
    """

    name: str
    layers: tuple[str, ...]
    channels: int
    unit: int
    raw: Any

    @property
    def units(self) -> int:
        """Number of removable units: heads in attention, channels elsewhere."""
        return self.channels // self.unit

    def unit_scores(self, scores: Tensor) -> Tensor:
        """Mean score of each unit ``(units,)`` from scores per channel ``(channels,)``."""
        return scores.reshape(self.units, self.unit).mean(1)


class Groups:
    """The channel groups of a model, and their removal.

    Args:
        model: a :class:`~bigopt.vocabulary.network.Network`; removal changes it in place and appends to its
            ``changes``, so that the same shapes can be rebuilt.
        example: raw input ``(N, …)`` for tracing.
        ignore: name patterns of layers that keep all their channels; the layer that computes the logits always does.
        strict: raise on a layer that cannot be handled, instead of naming it and leaving it.
        trial: where the model splits, slices or joins in a way that leaves indices to be guessed, first try removal
            on a copy, and leave what comes out wrong.

    Raises:
        RequestError: the model cannot be traced, or ``strict`` and a layer cannot be handled.
    """

    def __init__(
        self,
        model: Network,
        example: Tensor,
        ignore: Sequence[str] = (),
        strict: bool = False,
        trial: bool = True,
    ) -> None:
        self.model = model
        self.example = example
        self.ignore = tuple(ignore)
        self.strict = strict
        self.unhandled: dict[str, str] = {}
        self.attention: list[Attention] = attention_blocks(model)
        self._names = {module: name for name, module in model.named_modules()}
        self._graph, known = _trace(model, example)
        self._groups = list(self._collect())
        if trial and not known:
            self._leave_failing()

    def __iter__(self) -> Iterator[ChannelGroup]:
        return iter(self._groups)

    def __len__(self) -> int:
        return len(self._groups)

    def remove(self, group: ChannelGroup, units: Iterable[int]) -> None:
        """Removes these units of a group from every layer that has them.

        Raises:
            ValueError: a unit does not exist, or none would be left.
        """
        index = _channels(group, units)
        if not index:
            return
        self._members(group.name, index).prune(record_history=False)
        shrink_attention(self.model, self.attention, group.layers, len(index) // group.unit)
        self.model.changes.append({"op": "prune", "layer": group.name, "channels": index})

    def zero(self, group: ChannelGroup, units: Iterable[int]) -> None:
        """Sets every weight into and out of these units to 0; the outputs are those after :meth:`remove`.

        Raises:
            ValueError: a unit does not exist, or none would be left.
        """
        index = _channels(group, units)
        if not index:
            return
        with torch.no_grad():
            for dep, channels in self._members(group.name, index):
                module = dep.target.module
                if not isinstance(module, nn.Module):
                    continue
                if self._graph.is_out_channel_pruning_fn(dep.handler):
                    for tensor in (getattr(module, "weight", None), getattr(module, "bias", None)):
                        if tensor is not None:
                            tensor[channels] = 0
                elif isinstance(module, PRUNABLE):
                    module.weight[:, channels] = 0

    def _members(self, name: str, index: list[int]) -> Any:
        root = self.model.get_submodule(name)
        return self._graph.get_pruning_group(root, self._graph.get_pruner_of_module(root).prune_out_channels, index)

    def _collect(self) -> Iterator[ChannelGroup]:
        keep = {last_layer(self.model, self.example)}
        keep |= {name for name in self._names.values() if fits(name, self.ignore)}
        visited: set[str] = set()
        for root, module in self.model.named_modules():
            if not isinstance(module, PRUNABLE) or root in visited or module not in self._graph.module2node:
                continue
            channels = self._graph.get_out_channels(module)
            raw = self._members(root, list(range(channels)))
            layers = tuple(self._layers(raw))
            visited |= set(layers)
            if keep & set(layers):
                continue
            reason, unit = self._unit(raw, layers)
            if reason is None:
                yield ChannelGroup(root, layers, channels, unit, raw)
            else:
                self._leave(root, reason)

    def _leave_failing(self) -> None:
        def find(model: Network) -> Groups:
            return Groups(model, self.example, self.ignore, trial=False)

        wrong = failing(self.model, self.example, find, [group.name for group in self._groups])
        for group in self._groups:
            if group.name in wrong:
                others = ", ".join(group.layers[1:])
                self._leave(group.name, wrong[group.name] + (f"; {others} tied to it stays as well" if others else ""))
        self._groups = [group for group in self._groups if group.name not in self.unhandled]

    def _leave(self, name: str, reason: str) -> None:
        if self.strict:
            raise RequestError(f"layer {name} cannot be pruned: {reason}; name it in ignore or set strict=false")
        self.unhandled[name] = reason

    def _layers(self, raw: Any) -> Iterator[str]:
        """Names of the convolutions and linear layers that lose output channels, the root first."""
        seen = set()
        for dep, _ in raw:
            module = dep.target.module
            if isinstance(module, PRUNABLE) and self._graph.is_out_channel_pruning_fn(dep.handler):
                name = self._names[module]
                if name not in seen:
                    seen.add(name)
                    yield name

    def _unit(self, raw: Any, layers: Sequence[str]) -> tuple[str | None, int]:
        """Why a group cannot be handled (None if it can), and the channels that must go together."""
        for name in layers:
            module = self.model.get_submodule(name)
            if isinstance(module, nn.Conv1d | nn.Conv2d) and 1 < module.groups < module.out_channels:
                return f"it is a grouped convolution with {module.groups} groups", 1
        for block in self.attention:
            if set(block.projections) & set(layers):
                return None, block.head_size
        for dep, index in raw:
            module = dep.target.module
            if isinstance(module, nn.GroupNorm) and module.num_groups > 1:
                return f"group normalisation {self._names[module]} ties its channels together", 1
            if isinstance(module, nn.Parameter) and len(index) == 0:
                return "a free parameter depends on it", 1
        return None, 1


def _channels(group: ChannelGroup, units: Iterable[int]) -> list[int]:
    chosen = sorted({int(unit) for unit in units})
    if chosen and (chosen[0] < 0 or chosen[-1] >= group.units or len(chosen) >= group.units):
        raise ValueError(f"{group.name}: cannot remove units {chosen} of {group.units}")
    return [unit * group.unit + offset for unit in chosen for offset in range(group.unit)]


def last_layer(model: nn.Module, example: Tensor) -> str:
    """Name of the convolution or linear layer that computes the logits: the last one to run."""
    order: list[str] = []
    handles = [
        module.register_forward_hook(lambda _m, _i, _o, name=name: order.append(name))
        for name, module in model.named_modules()
        if isinstance(module, PRUNABLE)
    ]
    training = [module for module in model.modules() if module.training]
    model.eval()  # running statistics must not move
    try:
        with torch.no_grad():
            model(example)
    finally:
        for handle in handles:
            handle.remove()
        for module in training:
            module.training = True
    return order[-1] if order else ""


def _trace(model: Network, example: Tensor) -> tuple[Any, bool]:
    """torch-pruning's dependency graph, and whether all its indices are certain; a failure's message is one line."""
    import torch_pruning as tp

    logging.getLogger("torch_pruning").setLevel(logging.ERROR)
    training = model.training
    frozen = [parameter for parameter in model.parameters() if not parameter.requires_grad]
    model.eval()
    for parameter in frozen:
        parameter.requires_grad_(True)
    try:
        with torch.enable_grad():
            with Layout() as layout:
                graph = tp.DependencyGraph().build_dependency(model, example_inputs=example, verbose=False)
            return graph, layout.apply(graph)
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise RequestError(f"the model cannot be traced for removing channels: {reason}") from error
    finally:
        for parameter in frozen:
            parameter.requires_grad_(False)
        model.train(training)
