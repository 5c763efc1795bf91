"""Which modules of a model are activations, and which activations are plain function calls."""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from bigopt.vocabulary.patterns import fits

NAMES = re.compile(r"relu|gelu|silu|swish", re.IGNORECASE)
"""Of classes and functions; transformers and timm have activations of their own under such names."""


def activations(model: nn.Module, ignore: Sequence[str] = ()) -> dict[str, nn.Module]:
    """Modules without parameters that are a ReLU, GELU or SiLU, or a variant, by name."""
    return {name: module for name, module in model.named_modules() if is_activation(module) and not fits(name, ignore)}


def is_activation(module: nn.Module) -> bool:
    """Whether a module is such an activation."""
    empty = not any(True for _ in module.children()) and not any(True for _ in module.parameters())
    return empty and NAMES.search(type(module).__name__) is not None


def functional(model: nn.Module, x: Tensor) -> dict[str, str]:
    """Modules that call an activation inside their own forward pass, with the functions' names."""
    with _Calls(model) as calls, torch.no_grad():
        model(x)
    return {name: ", ".join(sorted(functions)) for name, functions in calls.found.items()}


class _Calls(TorchFunctionMode):
    """Notes calls of activation functions, by the innermost module that makes them."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.found: dict[str, set[str]] = {}
        self._model = model
        self._stack: list[tuple[str, nn.Module]] = []
        self._exit = ExitStack()

    def __enter__(self) -> _Calls:
        for name, module in self._model.named_modules():
            self._exit.callback(module.register_forward_pre_hook(self._enter(name)).remove)
            self._exit.callback(module.register_forward_hook(self._leave, always_call=True).remove)
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self._exit.close()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = getattr(func, "__name__", "").rstrip("_")
        if self._stack and NAMES.fullmatch(name.removesuffix("6").removeprefix("leaky_").removeprefix("hard")):
            module, caller = self._stack[-1]
            if not is_activation(caller):
                self.found.setdefault(module or type(caller).__name__, set()).add(name)
        return func(*args, **(kwargs or {}))

    def _enter(self, name: str) -> Any:
        return lambda module, _inputs: self._stack.append((name, module))

    def _leave(self, *_: Any) -> None:
        self._stack.pop()
