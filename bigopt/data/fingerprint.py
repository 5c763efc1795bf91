"""What a dataset is, as one hash: equal fingerprints mean equal content, splits and arguments."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from bigopt.data.stream import StreamSplit
from bigopt.vocabulary.data import Split, TensorSplit


def fingerprint(splits: Mapping[str, Split | None], arguments: Mapping[str, Any]) -> str:
    """SHA-256 over every split's inputs and labels, and the arguments.

    Args:
        splits: by name. In memory the content is hashed. A streaming split gives labels, positions, and what its
            loader's ``identity()`` says (file names, sizes, times), since reading all of it would take an epoch.
        arguments: plain values that determine the data beside their content.
    """
    digest = hashlib.sha256(json.dumps(arguments, sort_keys=True, default=str).encode())
    for name, split in sorted(splits.items()):
        if split is None:
            continue
        digest.update(f"\0{name}\0".encode())
        _add(digest, split.y)
        if isinstance(split, TensorSplit):
            _add(digest, split.x)
        elif isinstance(split, StreamSplit):
            _add(digest, split.position)
            identity = getattr(split.load, "identity", None)
            digest.update(identity().encode() if identity is not None else b"")
    return digest.hexdigest()


def _add(digest: Any, values: Tensor) -> None:
    digest.update(f"{values.dtype} {tuple(values.shape)}\0".encode())
    digest.update(values.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
