"""Which whole modules of a model can be left out, so that this is the same as setting their weights to zero."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from bigopt.surgery import Groups
from bigopt.train.modes import evaluating
from bigopt.vocabulary.network import Network
from bigopt.vocabulary.patterns import fits
from bigopt_plugins.compression.random_pruning._leaving import Whole, joins, leave_out

WEIGHTED = (nn.Conv1d, nn.Conv2d, nn.Linear)
MIXING = (nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)
"""Norms whose statistics go over channels: a channel of zeros is not the same as none."""


@dataclass(frozen=True)
class Reader:
    """Channels of a module outside that belong to a module that can be left out.

    Attributes:
        module: convolution, linear layer or batch norm.
        handler: torch-pruning's removal.
        index: the channels.
        inputs: whether they are input channels.
    """

    module: nn.Module
    handler: Any
    index: list[int]
    inputs: bool


def find_wholes(model: Network, example: Tensor, groups: Groups) -> list[Whole]:
    """Modules that can be left out, in the model's order: residual blocks, and branches of sums and concatenations.

    A residual block passes its input on once its weights are zero; a branch gives zeros. Both are tried out, on copies.
    Of nested residual blocks the innermost counts; of the two sides of a sum the deeper one.
    """
    with evaluating(model), torch.no_grad():
        calls = _record(model, example)
        blocks = [name for name, call in calls.items() if call.passes_when_zero]
        blocks = [name for name in blocks if not any(other.startswith(f"{name}.") for other in blocks)]
        found = [whole for name in blocks if (whole := _block(model, example, name)) is not None]
        inside = tuple(f"{whole.name}." for whole in found)
        for owner, module in model.named_modules():
            if module is model or type(module) is nn.Sequential or f"{owner}.".startswith(inside):
                continue
            if not any(name.startswith(f"{owner}.") for name in calls):
                continue
            branches = {n: j for n, j in joins(module).items() if _full(owner, n) in calls}
            deeper = {n: j for n, j in branches.items() if j.how == "cat" or _deeper(module, n, j.others)}
            for name, joined in deeper.items():
                full = _full(owner, name)
                if calls[full].vanishes_when_zero and (joined.how == "add" or readers(model, groups, full)):
                    found.append(Whole(full, joined.how, owner))
    order = {name: place for place, (name, _) in enumerate(model.named_modules())}
    return sorted(found, key=lambda whole: order[whole.name])


def bypass(model: Network, example: Tensor, patterns: Sequence[str]) -> list[Whole]:
    """Modules of these names that can be passed by because they keep their input's shape."""
    with evaluating(model), torch.no_grad():
        calls = _record(model, example)
        names = [n for n, call in calls.items() if call.same_shape and fits(n, patterns)]
        return [whole for name in names if (whole := _block(model, example, name, same=False)) is not None]


def readers(model: Network, groups: Groups, name: str) -> list[Reader] | None:
    """What outside of a branch has its channels; None where they are tied to channels of others."""
    inside = {module for module in model.get_submodule(name).modules()}
    found: list[Reader] = []
    for group in groups:
        members = [model.get_submodule(layer) in inside for layer in group.layers]
        if not any(members):
            continue
        if not all(members):
            return None
        for dep, index in group.raw:
            module = dep.target.module
            if not isinstance(module, nn.Module) or module in inside or not isinstance(
                getattr(module, "weight", None), Tensor
            ):  # fmt: skip
                continue
            if isinstance(module, MIXING):
                return None
            found.append(Reader(module, dep.handler, list(index), "in_channels" in dep.handler.__name__))
    return found or None


@dataclass
class _Call:
    """How a module was called, and what it gives once its weights are zero."""

    module: nn.Module
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    output: Any
    times: int = 1

    @property
    def input(self) -> Tensor | None:
        tensors = (value for value in (*self.args, *self.kwargs.values()) if isinstance(value, Tensor))
        return next(tensors, None)

    @property
    def same_shape(self) -> bool:
        given, first = self.input, _first(self.output)
        return given is not None and first is not None and given.shape == first.shape

    @property
    def passes_when_zero(self) -> bool:
        given = self.input
        if given is None or not self.same_shape or isinstance(self.module, WEIGHTED):
            return False
        answer = self._when_zero()
        return answer is not None and torch.allclose(answer, given, atol=1e-6)

    @property
    def vanishes_when_zero(self) -> bool:
        answer = self._when_zero()
        return answer is not None and not bool(answer.any())

    def _when_zero(self) -> Tensor | None:
        blank = copy.deepcopy(self.module)
        for parameter in blank.parameters():
            parameter.zero_()
        return _first(blank(*self.args, **self.kwargs))


def _record(model: Network, example: Tensor) -> dict[str, _Call]:
    """Calls of the modules that have weights and run once, the net itself left out."""
    calls: dict[str, _Call] = {}
    handles = []
    for name, module in model.named_modules():
        if name not in ("", "net") and any(isinstance(inner, WEIGHTED) for inner in module.modules()):

            def keep(module: nn.Module, args: Any, kwargs: Any, output: Any, name: str = name) -> None:
                times = calls[name].times + 1 if name in calls else 1
                calls[name] = _Call(module, args, kwargs, output, times)

            handles.append(module.register_forward_hook(keep, with_kwargs=True))
    try:
        model(example)
    finally:
        for handle in handles:
            handle.remove()
    order = [name for name, _ in model.named_modules() if name in calls]
    return {name: calls[name] for name in order if calls[name].times == 1}


def _block(model: Network, example: Tensor, name: str, same: bool = True) -> Whole | None:
    """How a block can be left out; None where the model does not run, or does not answer as with zero weights."""
    parameters = list(model.get_submodule(name).parameters())
    values = [parameter.clone() for parameter in parameters]
    for parameter in parameters:
        parameter.zero_()
    try:
        expected = model(example)
    finally:
        for parameter, value in zip(parameters, values, strict=True):
            parameter.copy_(value)
    for whole in (Whole(name, "identity"), Whole(name, "delete")):
        trial = copy.deepcopy(model)
        try:
            leave_out(trial, whole)
            answer = trial(example)
        except Exception:  # whatever a stranger's module makes of a missing one
            continue
        if answer.shape == expected.shape and (not same or torch.allclose(answer, expected, atol=1e-5)):
            return whole
    return None


def _deeper(owner: nn.Module, name: str, others: Sequence[Any]) -> bool:
    """Whether a side of a sum has more layers than the other side, where that is a module as well."""
    other = others[0]
    if other.op != "call_module":
        return True
    count, rest = (sum(isinstance(m, WEIGHTED) for m in owner.get_submodule(n).modules()) for n in (name, other.target))
    return count > rest


def _full(owner: str, name: str) -> str:
    return f"{owner}.{name}" if owner else name


def _first(output: Any) -> Tensor | None:
    first = output[0] if isinstance(output, tuple) and output else output
    return first if isinstance(first, Tensor) else None
