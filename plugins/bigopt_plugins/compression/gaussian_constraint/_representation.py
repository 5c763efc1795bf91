"""Sparse representations on disk, and the weights rebuilt from them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bigopt.vocabulary.errors import RequestError
from bigopt_plugins.compression.gaussian_constraint._operator import Operator

HEADER = "representation"


@dataclass
class Sparse:
    """The representation of one layer's weight.

    Attributes:
        z: sparse ``(out, in, …)``; its rows are those that are left.
        operator: rebuilds the weight.
        columns: input channels of the rebuilt weight that are left.
    """

    z: Tensor
    operator: Operator
    columns: Tensor

    def weight(self) -> Tensor:
        """The weight that it stands for."""
        return self.operator.rebuild(self.z)[:, self.columns]


def save(found: Mapping[str, Sparse], folder: Path, stem: str) -> tuple[Path, int]:
    """Writes representations to one safetensors file, named after what is in it.

    Of each layer the file holds the non-zero values, and where they are: as bits, or as numbers where that is shorter.

    Args:
        found: by layer.
        folder: where to.
        stem: of the file's name.

    Returns:
        the file, and its size in bytes.

    Raises:
        OSError: it could not be written.
    """
    from bigopt.store import save_tensors

    tensors: dict[str, Tensor] = {}
    header: dict[str, Any] = {}
    for name, sparse in found.items():
        flat = sparse.z.detach().cpu().float().flatten()
        places = flat.nonzero().flatten()
        tensors[f"{name}.values"] = flat[places]
        bits = len(places) * 32 > len(flat)
        tensors[f"{name}.bits" if bits else f"{name}.places"] = _packed(flat != 0) if bits else places.int()
        whole = len(sparse.columns) == sparse.z.shape[1]
        if not whole:
            tensors[f"{name}.columns"] = sparse.columns.cpu().int()
        kernel = [list(row) for row in sparse.operator.kernel]
        header[name] = {"shape": list(sparse.z.shape), "size": list(sparse.operator.size), "kernel": kernel}
    digest = hashlib.sha256(json.dumps(header, sort_keys=True).encode())
    for name in sorted(tensors):
        digest.update(name.encode() + tensors[name].contiguous().numpy().tobytes())
    path = Path(folder) / f"{stem}-{digest.hexdigest()[:8]}.safetensors"
    save_tensors(path, tensors, {HEADER: json.dumps(header)})
    return path, path.stat().st_size


def load(path: str | Path) -> dict[str, Tensor]:
    """The weights, rebuilt from their sparse representation, by layer.

    Raises:
        RequestError: the file is no such representation.
    """
    from bigopt.store.tensors import read_safetensors

    tensors, header = read_safetensors(Path(path))
    try:
        known = json.loads(header[HEADER])
        return {name: _rebuilt(name, entry, tensors) for name, entry in known.items()}
    except (KeyError, ValueError, TypeError, RuntimeError) as error:
        raise RequestError(f"{path}: no sparse representation of weights ({error})") from None


def _rebuilt(name: str, entry: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Tensor:
    shape = torch.Size(entry["shape"])
    flat = torch.zeros(shape.numel())
    if f"{name}.bits" in tensors:
        flat[_unpacked(tensors[f"{name}.bits"], shape.numel())] = tensors[f"{name}.values"]
    else:
        flat[tensors[f"{name}.places"].long()] = tensors[f"{name}.values"]
    columns = tensors.get(f"{name}.columns")
    operator = Operator.of((int(entry["size"][0]), int(entry["size"][1])), entry["kernel"])
    index = columns.long() if columns is not None else torch.arange(shape[1])
    return Sparse(flat.reshape(shape), operator, index).weight()


def _packed(mask: Tensor) -> Tensor:
    padded = torch.nn.functional.pad(mask.to(torch.uint8), (0, -len(mask) % 8)).reshape(-1, 8)
    return (padded << torch.arange(8, dtype=torch.uint8)).sum(1, dtype=torch.uint8)


def _unpacked(packed: Tensor, count: int) -> Tensor:
    return ((packed[:, None] >> torch.arange(8, dtype=torch.uint8)) & 1).flatten()[:count].bool()
