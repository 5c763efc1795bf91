"""Nested state (optimizers, schedulers, random generators) as one safetensors file: tensors, and JSON for the rest."""

from __future__ import annotations

import base64
import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bigopt.store.tensors import read_safetensors, save_tensors
from bigopt.vocabulary.errors import RequestError

if TYPE_CHECKING:
    from torch import Tensor

FORMAT = "bigopt-state-1"


def save_state(path: str | Path, tree: Any) -> Path:
    """Writes a tree of plain types and tensors, atomically; :func:`load_state` gives an equal one.

    Kept as they are: None, bool, int, float (also inf and nan), str, bytes, list, tuple, dict with keys of any of
    these, tensors (on the CPU afterwards), NumPy arrays and scalars.

    Raises:
        OSError: the file could not be written; an older one is as it was.
        TypeError: something else is in the tree; the message says where.
    """
    tensors: dict[str, Tensor] = {}
    encoded = _encode(tree, tensors, "state")
    return save_tensors(path, tensors, {"format": FORMAT, "tree": json.dumps(encoded, allow_nan=False)})


def load_state(path: str | Path) -> Any:
    """The tree that :func:`save_state` wrote.

    Raises:
        OSError: the file cannot be read.
        RequestError: it is damaged, or something else.
    """
    tensors, metadata = read_safetensors(path)
    if metadata.get("format") != FORMAT:
        raise RequestError(f"{path}: holds tensors, but no state that bigopt saved")
    try:
        return _decode(json.loads(metadata["tree"]), tensors)
    except (ValueError, KeyError, TypeError, IndexError, RecursionError) as error:
        raise RequestError(f"{path}: damaged state ({type(error).__name__}: {error})") from None


def _encode(value: Any, tensors: dict[str, Tensor], where: str) -> Any:
    """JSON for a value: scalars as they are, everything else as ``[kind, content]``."""
    import numpy
    import torch

    if isinstance(value, numpy.generic):
        value = value.item()
    if value is None or isinstance(value, (bool, str)):
        return value
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else ["float", repr(float(value))]
    if isinstance(value, bytes):
        return ["bytes", base64.b64encode(value).decode()]
    if isinstance(value, torch.Tensor):
        return ["tensor", _keep(value, tensors)]
    if isinstance(value, numpy.ndarray) and value.dtype.kind in "biufc":
        raw = torch.frombuffer(bytearray(value.tobytes()), dtype=torch.uint8) if value.size else torch.empty(0)
        return ["array", [value.dtype.str, list(value.shape), _keep(raw, tensors)]]
    if isinstance(value, (list, tuple)):
        kind = "list" if isinstance(value, list) else "tuple"
        return [kind, [_encode(item, tensors, f"{where}[{i}]") for i, item in enumerate(value)]]
    if isinstance(value, dict):
        pairs = [
            [_encode(key, tensors, f"{where} key"), _encode(item, tensors, f"{where}[{key!r:.40}]")]
            for key, item in value.items()
        ]
        return ["dict", pairs]
    raise TypeError(f"{where}: cannot save a {type(value).__name__}; expected plain types and tensors")


def _decode(value: Any, tensors: dict[str, Tensor]) -> Any:
    if not isinstance(value, list):
        return value
    kind, content = value
    if kind == "float":
        return float(content)
    if kind == "bytes":
        return base64.b64decode(content)
    if kind == "tensor":
        return tensors[content]
    if kind == "array":
        return _array(content, tensors)
    if kind == "list":
        return [_decode(item, tensors) for item in content]
    if kind == "tuple":
        return tuple(_decode(item, tensors) for item in content)
    if kind == "dict":
        return {_decode(key, tensors): _decode(item, tensors) for key, item in content}
    raise ValueError(f"unknown kind {kind!r:.40}")


def _array(content: Any, tensors: dict[str, Tensor]) -> Any:
    import numpy

    dtype, shape, name = content
    return numpy.frombuffer(tensors[name].numpy().tobytes(), dtype=numpy.dtype(dtype)).reshape(shape).copy()


def _keep(tensor: Tensor, tensors: dict[str, Tensor]) -> str:
    name = f"t{len(tensors)}"
    tensors[name] = tensor
    return name
