"""The calls of torch's functions that a forward pass makes, with names that are the same in every pass.

Working on calls leaves the modules as they are: hooks and taps fire, parameters keep their names, and additions and
other operators that are no module's can be rounded as well.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from bigopt.train.modes import evaluating

INPUT = "input"
"""Key of the network's input."""

Arguments = tuple[Any, ...]


class Calls(TorchFunctionMode):
    """Sees every call while it is active.

    A call's key is the last parameter used before (or by) it, the function's name, and which such call it is: calls
    that only happen in training elsewhere do not shift it.

    Args:
        parameters: names of the parameters and what they are.
    """

    def __init__(self, parameters: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.names = {id(parameter): name for name, parameter in parameters.items()}
        self._anchor = ""
        self._counts: Counter[tuple[str, str]] = Counter()

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Arguments = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Names the call and hands it to :meth:`call`."""
        op = getattr(func, "__name__", "")
        if op == "__get__" or op.startswith("__set"):
            return self.attribute(func(*args, **(kwargs or {})), args)
        used = self.used(args, kwargs)
        if used:
            self._anchor = used[0]
        number = self._counts[self._anchor, op]
        self._counts[self._anchor, op] += 1
        return self.call(f"{self._anchor}:{op}:{number}", op, func, args, kwargs or {})

    def used(self, args: Sequence[Any], kwargs: Mapping[str, Any] | None) -> list[str]:
        """Names of the parameters among the arguments."""
        given = [*args, *kwargs.values()] if kwargs else args
        return [self.names[id(value)] for value in given if id(value) in self.names]

    def attribute(self, value: Any, args: Arguments) -> Any:
        """An attribute of a tensor, such as its shape or its transpose."""
        return value

    def call(self, key: str, op: str, func: Callable[..., Any], args: Arguments, kwargs: dict[str, Any]) -> Any:
        """Makes the call; what is returned takes the place of its result."""
        return func(*args, **kwargs)


@dataclass
class Call:
    """One call of a survey.

    Attributes:
        key: name of the call.
        op: name of the function.
        sources: positions of the calls that made its tensors; computed ones only.
        parameters: names of the parameters it takes.
        args: its arguments.
        out: its first result.
        alone: whether that is all it gives.
        readers: positions of the calls that take its result.
    """

    key: str
    op: str
    sources: list[int]
    parameters: list[str]
    args: Arguments
    out: Tensor
    alone: bool = True
    readers: list[int] = field(default_factory=list)


class Survey(Calls):
    """Records the calls of one forward pass, and which reads whose result."""

    def __init__(self, parameters: Mapping[str, Tensor], x: Tensor) -> None:
        super().__init__(parameters)
        self.calls = [Call(INPUT, INPUT, [], [], (), x)]
        self._makers = {id(x): 0}
        self._alive: list[Any] = [x]

    def call(self, key: str, op: str, func: Callable[..., Any], args: Arguments, kwargs: dict[str, Any]) -> Any:
        """Records a call that gives a tensor."""
        sources = [self._makers[id(t)] for t in _tensors([*args, *kwargs.values()]) if id(t) in self._makers]
        parameters = self.used(args, kwargs)
        out = func(*args, **kwargs)
        results = _tensors([out])
        if results:
            position = len(self.calls)
            self.calls.append(Call(key, op, sources, parameters, args, results[0], out is results[0]))
            for source in sources:
                self.calls[source].readers.append(position)
            self._makers |= {id(result): position for result in results}
            self._alive.append((out, args, kwargs))  # ids are only unique while what they name is alive
        return out

    def attribute(self, value: Any, args: Arguments) -> Any:
        """A tensor's transpose has its maker."""
        if isinstance(value, Tensor) and args and id(args[0]) in self._makers:
            self._makers.setdefault(id(value), self._makers[id(args[0])])
            self._alive.append(value)
        return value

    def maker(self, tensor: Tensor) -> int:
        """Position of the call that made a tensor."""
        return self._makers[id(tensor)]


def survey(model: nn.Module, x: Tensor) -> tuple[list[Call], int]:
    """The calls of one forward pass in evaluation mode, and the position of the one that makes the output."""
    with evaluating(model), torch.no_grad(), Survey(dict(model.named_parameters()), x) as mode:
        out = model(x)
    return mode.calls, mode.maker(out)


def _tensors(values: Sequence[Any]) -> list[Tensor]:
    found: list[Tensor] = []
    for value in values:
        if isinstance(value, Tensor):
            found.append(value)
        elif isinstance(value, list | tuple):
            found.extend(_tensors(value))
    return found
