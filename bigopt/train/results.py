"""What a finished fit leaves on disk: the weights and the history, under a manifest."""

from __future__ import annotations

import math
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from torch import nn

from bigopt.store import load_state, read_json, save_state, write_json
from bigopt.train.record import State, restore, snapshot
from bigopt.vocabulary.run import History

WEIGHTS = "weights.safetensors"
HISTORY = "history.json"


def weights_of(model: nn.Module, modules: dict[str, nn.Module]) -> State:
    """Weights of the model and the auxiliary modules."""
    return {"model": snapshot(model), "modules": {name: snapshot(module) for name, module in modules.items()}}


def write_result(folder: Path, key: str, weights: State, history: History) -> None:
    """Writes a result into an empty folder; the caller adds the manifest."""
    save_state(folder / WEIGHTS, weights)
    write_json(folder / HISTORY, {"key": key, "history": asdict(history)})


def key_of(folder: Path) -> str:
    """The key of the fit that a result belongs to."""
    return str(read_json(folder / HISTORY)["key"])


def read_result(folder: Path, model: nn.Module, modules: dict[str, nn.Module]) -> History:
    """Loads a result into the model and the auxiliary modules."""
    restore(load_state(folder / WEIGHTS), model, modules)
    content: dict[str, Any] = read_json(folder / HISTORY)["history"]
    known = {field.name for field in fields(History)}
    history = History(**{name: value for name, value in content.items() if name in known})
    # JSON has no NaN: what was not a number came back as null
    history.epochs = [{n: math.nan if v is None else float(v) for n, v in row.items()} for row in history.epochs]
    return history
