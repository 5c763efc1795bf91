"""Everything that a fit needs to go on as if nothing had happened, as plain types and tensors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from bigopt.store import Generations, load_state, save_state
from bigopt.train import ddp, rng
from bigopt.train.record import Record, restore, snapshot

if TYPE_CHECKING:
    import pytorch_lightning as pl

    from bigopt.train._module import FitModule

FILE = "state.safetensors"
VERSION = 1

State = dict[str, Any]


def capture(trainer: pl.Trainer, module: FitModule, record: Record, seconds: float) -> State:
    """State between two optimizer steps; on every rank at once, complete on each."""
    job = module.job
    return {
        "version": VERSION,
        "plan": module.plan.state(),
        "position": {"epoch": module.epoch, "batch": module.batch, "step": module.step, "rate": module.rate},
        "weights": {"model": snapshot(module.model), "modules": {n: snapshot(m) for n, m in job.modules.items()}},
        "optimizer": optimizer_state(trainer.optimizers[0], names_of(module)),
        "scaler": dict(trainer.precision_plugin.state_dict()),
        "average": None if module.average is None else dict(module.average.values),
        "means": module.means.state(),
        "plateau": asdict(module.plateau),
        "record": vars(record) | {"seconds": seconds},
        "requires_grad": {name: p.requires_grad for name, p in module.named_parameters()},
        "training": {name: m.training for name, m in module.named_modules()},
        "callbacks": [callback.state_dict() for callback in _callbacks(trainer)],
        "rng": ddp.gather(rng.capture()),
    }


def apply(state: State, trainer: pl.Trainer, module: FitModule) -> None:
    """Puts everything back that can only be put back once the Trainer stands: all but position and record."""
    restore(state["weights"], module.model, module.job.modules)
    for name, parameter in module.named_parameters():
        parameter.requires_grad_(state["requires_grad"][name])
    for name, part in module.named_modules():
        part.training = state["training"].get(name, part.training)
    load_optimizer(trainer.optimizers[0], state["optimizer"], dict(module.named_parameters()))
    trainer.precision_plugin.load_state_dict(state["scaler"])
    if module.average is not None and state["average"] is not None:
        module.average.load(state["average"])
    module.means.load(**state["means"], device=module.device)
    for name, value in state["plateau"].items():
        setattr(module.plateau, name, value)
    for callback, saved in zip(_callbacks(trainer), state["callbacks"], strict=True):
        if saved:
            callback.load_state_dict(saved)
    rng.restore(state["rng"][ddp.rank() % len(state["rng"])])


def record_of(state: State) -> Record:
    """The record of epochs that a checkpoint holds."""
    return Record(**state["record"])


def save(generations: Generations, state: State, key: str) -> None:
    """Writes a checkpoint as a new generation.

    Raises:
        OSError: it could not be written; the older generations are as they were.
    """
    generations.save(lambda folder: _write(folder, state | {"key": key}))


def load(folder: Path, key: str) -> State | None:
    """The state in a verified generation, if it is one of this very fit."""
    state: State = load_state(folder / FILE)
    return state if state.get("version") == VERSION and state.get("key") == key else None


def _write(folder: Path, state: State) -> None:
    save_state(folder / FILE, state)


def names_of(module: nn.Module) -> dict[int, str]:
    """Names of all parameters by identity."""
    return {id(parameter): name for name, parameter in module.named_parameters()}


def optimizer_state(optimizer: torch.optim.Optimizer, names: Mapping[int, str]) -> State:
    """Groups and state by parameter name, so that groups added during the fit come back as well."""
    groups = [
        {key: [names[id(p)] for p in value] if key == "params" else value for key, value in group.items()}
        for group in optimizer.param_groups
    ]
    return {"groups": groups, "state": {names[id(p)]: dict(held) for p, held in optimizer.state.items()}}


def load_optimizer(optimizer: torch.optim.Optimizer, state: State, by_name: Mapping[str, nn.Parameter]) -> None:
    """Rebuilds the groups and loads the state.

    Loaded tensors take their parameter's memory format: fused kernels walk all of them in one order.
    """
    optimizer.param_groups.clear()
    order: list[str] = []
    for group in state["groups"]:
        optimizer.param_groups.append(group | {"params": [by_name[name] for name in group["params"]]})
        order += group["params"]
    index = {name: i for i, name in enumerate(order)}
    packed, start = [], 0
    for group in state["groups"]:
        packed.append(group | {"params": list(range(start, start + len(group["params"])))})
        start += len(group["params"])
    optimizer.load_state_dict({"state": {index[n]: held for n, held in state["state"].items()}, "param_groups": packed})
    for parameter, held in optimizer.state.items():
        for key, value in held.items():
            if isinstance(value, torch.Tensor) and value.shape == parameter.shape:
                held[key] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)


def _callbacks(trainer: pl.Trainer) -> list[Any]:
    return list(trainer.callbacks)  # type: ignore[attr-defined]
