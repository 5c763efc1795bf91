"""Torch's table of ONNX translations, built once instead of at every export."""

from __future__ import annotations

import copy
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_BUILT: dict[Any, Any] = {}
_LOCK = threading.RLock()


@contextmanager
def remembered_registry() -> Iterator[None]:
    """While it is open, exports share the table: building it takes torch longer than a small model's export.

    Every export gets a table of its own to add translations to. It is built again once further operators are known to
    torch, since it leaves out those that are not. Where torch has no such table any more, nothing is changed.
    """
    try:
        from torch._C import _dispatch_get_all_op_names as operators
        from torch.onnx._internal.exporter._registration import ONNXRegistry

        before = ONNXRegistry.__dict__["from_torchlib"]
        build = ONNXRegistry.from_torchlib
    except (ImportError, KeyError, AttributeError):
        yield
        return

    def remembered(*given: Any, **named: Any) -> Any:
        key = (len(operators()), given, tuple(sorted(named.items())))
        if key not in _BUILT:
            _BUILT[key] = build(*given, **named)
        own = copy.copy(_BUILT[key])
        own.functions = {name: list(known) for name, known in own.functions.items()}
        return own

    table: Any = ONNXRegistry
    with _LOCK:
        table.from_torchlib = staticmethod(remembered)
        try:
            yield
        finally:
            table.from_torchlib = before
