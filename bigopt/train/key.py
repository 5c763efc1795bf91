"""The content key of a fit: SHA-256 over everything that determines its result."""

from __future__ import annotations

import hashlib
import inspect
import json
import re
import sys
from collections.abc import Mapping
from dataclasses import asdict, fields, is_dataclass
from functools import lru_cache
from os import PathLike
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from bigopt.train import ddp
from bigopt.train.job import Job
from bigopt.vocabulary.data import Data, TensorSplit
from bigopt.vocabulary.part import Part

RUN_CONTROL = {"max_epochs", "checkpoint_seconds", "workers", "threads", "eval_batch_size"}
"""Trainer settings that change how a fit goes, not what comes out."""

OWN_CODE = ("bigopt.train", "bigopt.vocabulary.task", "bigopt.vocabulary.run", "bigopt.data.batches")


def content_key(job: Job, ordinal: int) -> str:
    """Key of a fit in SHA-256 hex; equal keys mean equal results (on the same kind of machine)."""
    run = job.run
    trainer = {name: value for name, value in asdict(run.settings.trainer).items() if name not in RUN_CONTROL}
    facts = {
        "model": describe(run.model),
        "modules": describe(job.modules),
        "baseline": describe(run.baseline),
        "data": run.data.fingerprint or data_digest(run.data),
        "trainer": trainer,
        "optimizer": _optimizer(job),
        "scheduler": asdict(run.settings.scheduler),
        "epochs": job.epochs,
        "lr": job.lr,
        "monitor": asdict(run.monitor),
        "task": asdict(run.task),
        "parts": [describe_part(part) for part in job.parts],
        "seed": [run.seed, ordinal],
        "ranks": ddp.world_size(),
        "torch": torch.__version__,
        "code": own_code(),
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()


def _optimizer(job: Job) -> dict[str, Any]:
    """The optimizer's settings; without Parts, which may read it, the run's learning rate is not the fit's own.

    A teacher with a rate of its own is the same whatever rate its student has.
    """
    found = asdict(job.run.settings.optimizer)
    return found if job.parts else found | {"lr": None}


def describe_part(part: Part) -> dict[str, Any]:
    """A Part's class, arguments, held modules and code.

    Attributes that no argument is named after are left out, unless an argument cannot be found among them: what a
    Part caches while it trains must not change its key.
    """
    held = vars(part)
    names = [name for name in inspect.signature(type(part)).parameters if name not in ("args", "kwargs")]
    found = {name: held[key] for name in names for key in (name, f"_{name}") if key in held}
    arguments = found if len(found) == len(names) else {n: v for n, v in held.items() if not isinstance(v, nn.Module)}
    return {
        "class": f"{type(part).__module__}.{type(part).__qualname__}",
        "arguments": describe(arguments),
        "modules": describe({name: value for name, value in held.items() if isinstance(value, nn.Module)}),
        "code": code_digest(type(part)),
    }


def describe(value: Any, depth: int = 8) -> Any:
    """A value in JSON's types, the same for equal values in every process; tensors and modules by their digest."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if depth == 0:
        return type(value).__qualname__
    if isinstance(value, Tensor):
        return {"tensor": tensors_digest({"": value})}
    if isinstance(value, nn.Module):
        return {"module": structure(value), "weights": tensors_digest(value.state_dict())}
    if isinstance(value, Mapping):
        return [[str(key), describe(item, depth - 1)] for key, item in sorted(value.items(), key=lambda i: str(i[0]))]
    if isinstance(value, (list, tuple)):
        return [describe(item, depth - 1) for item in value]
    if isinstance(value, (set, frozenset)):
        return sorted(str(item) for item in value)
    if isinstance(value, PathLike):
        return str(value)
    return _describe_object(value, depth)


def _describe_object(value: Any, depth: int) -> Any:
    if isinstance(value, type) or inspect.isroutine(value):
        return f"{value.__module__}.{value.__qualname__}"
    held: dict[str, Any] = {}
    if is_dataclass(value):
        held = {field.name: getattr(value, field.name) for field in fields(value)}
    elif hasattr(value, "__dict__"):
        held = vars(value)
    return [f"{type(value).__module__}.{type(value).__qualname__}", describe(held, depth - 1)]


def structure(module: nn.Module) -> str:
    """What a module computes with, as far as its printed form and its physical changes tell."""
    printed = re.sub(r"0x[0-9a-f]+", "", str(module))
    return printed + json.dumps(getattr(module, "changes", []), default=str)


def tensors_digest(state: Mapping[str, Any]) -> str:
    """SHA-256 over names, types, shapes and bytes; what is no tensor counts by its printed form."""
    digest = hashlib.sha256()
    for name, value in state.items():
        if not isinstance(value, Tensor):
            digest.update(f"{name}={value!r}".encode())
            continue
        digest.update(f"{name}:{value.dtype}:{tuple(value.shape)}".encode())
        flat = value.detach().cpu().contiguous().reshape(-1)
        digest.update(flat.view(torch.uint8).numpy().data if flat.numel() else b"")
    return digest.hexdigest()


def data_digest(data: Data) -> str:
    """Digest of a dataset whose plugin gave no fingerprint."""
    tensors = {}
    for name, split in (("train", data.train), ("val", data.val), ("unlabelled", data.unlabelled)):
        if split is not None:
            tensors[f"{name}.y"] = split.y
            if isinstance(split, TensorSplit):
                tensors[f"{name}.x"] = split.x
    return tensors_digest(tensors)


@lru_cache(maxsize=1)
def own_code() -> str:
    """Digest of the code that trains."""
    digest = hashlib.sha256()
    for name in OWN_CODE:
        __import__(name)
        path = Path(str(sys.modules[name].__file__))
        for file in sorted(path.parent.glob("*.py")) if path.name == "__init__.py" else [path]:
            digest.update(file.read_bytes())
    return digest.hexdigest()


def code_digest(kind: type) -> str:
    """Digest of the modules that a class is made of: its bases' and what these import from their own package."""
    pending = [sys.modules[base.__module__] for base in kind.__mro__ if base.__module__ in sys.modules]
    top = kind.__module__.partition(".")[0]
    seen: dict[str, bytes] = {}
    while pending:
        module = pending.pop()
        file = getattr(module, "__file__", None)
        own = module.__name__.partition(".")[0] == top
        if file is None or module.__name__ in seen or not (own or module.__name__ == kind.__module__):
            continue
        seen[module.__name__] = Path(file).read_bytes() if Path(file).is_file() else b""
        pending += _used(module)
    return hashlib.sha256(b"".join(name.encode() + seen[name] for name in sorted(seen))).hexdigest()


def _used(module: ModuleType) -> list[ModuleType]:
    """Modules whose names, functions or classes a module holds."""
    held = list(vars(module).values())
    names = {v.__name__ if isinstance(v, ModuleType) else getattr(v, "__module__", None) for v in held}
    return [sys.modules[name] for name in names if isinstance(name, str) and name in sys.modules]
