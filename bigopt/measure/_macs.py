"""Sees every matrix product and convolution of a forward pass, with the widths of what goes in."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from bigopt.measure.counts import FLOAT, Layer, width_of_range

OPERANDS = {"addmm": (1, 2), "baddbmm": (1, 2), "addmv": (1, 2)}
"""Positions of the factors where they are not the first two arguments."""

VECTOR = {"mv": 0, "dot": 0, "addmv": 1}
"""Products that torch's formulas leave out, with the position of the factor whose every element is multiplied once."""


class MacCounter(TorchDispatchMode):
    """Records a :class:`Layer` for every product of a forward pass that runs inside.

    Formulas are torch's own (``torch.utils.flop_counter``, which counts a multiplication and an addition as two).

    Args:
        model: its modules give the layers their names.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.layers: list[Layer] = []
        self._model = model
        self._stack: list[str] = []
        self._bits: dict[int, int] = {}
        self._alive: list[Tensor] = []  # ids are only unique while what they name is alive
        self._exit = ExitStack()

    def __enter__(self) -> MacCounter:
        self._exit.enter_context(sdpa_kernel(SDPBackend.MATH))
        self._exit.enter_context(torch.backends.mkldnn.flags(enabled=False))  # its recurrent layers are fused too
        fast = torch.backends.mha.get_fastpath_enabled()
        torch.backends.mha.set_fastpath_enabled(False)
        self._exit.callback(torch.backends.mha.set_fastpath_enabled, fast)
        for name, module in self._model.named_modules():
            if name:
                self._follow(name, module)
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self._exit.close()
        self._bits.clear()
        self._alive.clear()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        name = func._schema.name.split("::")[1]
        if "quantize" in name:
            self._widths(args, result)
        elif func._overloadpacket in flop_registry:
            flops = flop_registry[func._overloadpacket](*args, **(kwargs or {}), out_val=result)
            self._product(name, args, int(flops) // 2)
        elif name in VECTOR:
            self._product(name, args, args[VECTOR[name]].numel())
        elif args and isinstance(args[0], Tensor) and isinstance(result, Tensor) and _same_values(func):
            self._mark(result, self._bits.get(id(args[0])))
        return result

    def _product(self, name: str, args: Any, macs: int) -> None:
        first, second = OPERANDS.get(name, (0, 1))
        layer = self._stack[-1] if self._stack else f"{name}_{len(self.layers)}"
        self.layers.append(Layer(layer, macs, self._width(args[second]), self._width(args[first])))

    def _widths(self, args: Any, result: Any) -> None:
        """Notes how many levels a (de)quantize or fake-quantize operator leaves."""
        output = result[0] if isinstance(result, tuple) else result
        if isinstance(output, Tensor):
            self._mark(output, width_of_range(args))

    def _width(self, value: Any) -> int:
        return self._bits.get(id(value), FLOAT)

    def _mark(self, tensor: Tensor, bits: int | None) -> None:
        if bits is not None:
            self._bits[id(tensor)] = bits
            self._alive.append(tensor)

    def _follow(self, name: str, module: nn.Module) -> None:
        def enter(_module: nn.Module, _inputs: Any) -> None:
            self._stack.append(name)

        def leave(_module: nn.Module, _inputs: Any, _output: Any) -> None:
            self._stack.pop()

        handles: list[Callable[[], None]] = [
            module.register_forward_pre_hook(enter).remove,
            module.register_forward_hook(leave, always_call=True).remove,
        ]
        for remove in handles:
            self._exit.callback(remove)


def _same_values(func: Any) -> bool:
    """Whether an operator only rearranges what it is given, so that the width stays."""
    return bool(func.is_view) or func._schema.name in ("aten::clone", "aten::relu", "aten::max_pool2d_with_indices")
