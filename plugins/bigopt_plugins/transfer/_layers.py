"""Parts of a network that transfer tells apart: its blocks, its head, and what a source can give to it."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from bigopt.data import generator
from bigopt.train import STAY_EVAL
from bigopt.vocabulary.errors import RequestError
from bigopt.vocabulary.part import Fit
from bigopt.vocabulary.run import Run
from bigopt_plugins.transfer._source import Source, class_names, resolve


def blocks(model: nn.Module) -> list[str]:
    """Names of the modules with parameters, one level below the network's containers, in order of definition."""
    return list(_blocks(model, ""))


def _blocks(module: nn.Module, prefix: str) -> Iterator[str]:
    for name, child in module.named_children():
        if not any(True for _ in child.parameters()):
            continue
        path = f"{prefix}.{name}" if prefix else name
        container = prefix == "" or isinstance(child, nn.Sequential | nn.ModuleList | nn.ModuleDict)
        container = container or any(isinstance(inner, nn.ModuleList) for inner in child.modules())  # encoders' layers
        if container and any(True for _ in child.children()):
            yield from _blocks(child, path)
        else:
            yield path


def head_name(model: nn.Module) -> str:
    """Name of the layer that gives the logits: the last linear one.

    Raises:
        RequestError: the model has none.
    """
    names: list[str] = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    if not names:
        raise RequestError("transfer: the model has no linear layer that gives the logits, which this strategy needs")
    return names[-1]


def dense(sizes: list[int]) -> nn.Module:
    """Linear layers with ReLU between them; a single one for two sizes."""
    layers: list[nn.Module] = []
    for inputs, outputs in zip(sizes, sizes[1:], strict=False):
        layers += [nn.Linear(inputs, outputs), nn.ReLU()]
    return layers[0] if len(sizes) == 2 else nn.Sequential(*layers[:-1])


def put_head(model: nn.Module, entry: Mapping[str, Any]) -> None:
    """Puts a new dense head in place, as a recorded change says: ``at`` and ``sizes``.

    Raises:
        RequestError: the entry does not fit the model.
    """
    try:
        sizes = [int(size) for size in entry["sizes"]]
        model.get_submodule(str(entry["at"]))
    except (AttributeError, KeyError, TypeError, ValueError):
        raise RequestError(f"{entry.get('plugin')}: the change {dict(entry)} does not fit this model") from None
    model.set_submodule(str(entry["at"]), dense(sizes))


@contextmanager
def seeded(run: Run, purpose: str) -> Iterator[None]:
    """Random numbers inside of the block follow from the run's seed and the purpose; those outside are left as is."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(generator(run.seed, "transfer", purpose).initial_seed())
        yield


def freeze_all_but(model: nn.Module, name: str) -> None:
    """Freezes everything outside of one module, dropout and running statistics included."""
    inside = f"{name}."
    for path, parameter in model.named_parameters():
        if not path.startswith(inside):
            parameter.requires_grad_(False)
    for path, module in model.named_modules():
        if path != name and not path.startswith(inside) and not inside.startswith(f"{path}." if path else ""):
            setattr(module, STAY_EVAL, True)


def unfreeze(model: nn.Module) -> None:
    """Takes back every freezing."""
    model.requires_grad_(True)
    for module in model.modules():
        module.__dict__.pop(STAY_EVAL, None)


def take_over(model: nn.Module, source: nn.Module, without: str | None = None) -> tuple[int, list[str]]:
    """Copies every tensor whose name and shape agree, normalisation of the input excepted.

    Args:
        model: gets the tensors.
        source: gives them.
        without: a module of the model that keeps its own values.

    Returns:
        number of tensors copied, and names of those that keep their own values.

    Raises:
        RequestError: nothing agrees.
    """
    own = model.state_dict()
    theirs = source.state_dict()
    kept = ("normalize.",) if without is None else ("normalize.", f"{without}.")
    shared = {
        name: theirs[name]
        for name, value in own.items()
        if not name.startswith(kept) and name in theirs and theirs[name].shape == value.shape
    }
    if not shared:
        raise RequestError("transfer.source: no tensor of the source model fits this model; use the same architecture")
    model.load_state_dict(shared, strict=False)
    return len(shared), [name for name in own if name not in shared and not name.startswith("normalize.")]


def start_from(
    run: Run, fit: Fit, source: str | Mapping[str, Any] | list[Any], epochs: int | None = None
) -> Source | None:
    """Gives the run's model the weights of a source; its head stays its own unless the classes are the same.

    A run folder brings its structure along (channels that were removed). Of several sources the one is taken whose
    features suit the target best.

    Args:
        run: its model takes over.
        fit: trains source models that come without weights.
        source: as for :func:`resolve`, or a list of these.
        epochs: passes over the source data.

    Returns:
        The source; None for the folder of a run whose data cannot be had any more.

    Raises:
        RequestError: a source that cannot be used, or a model of another architecture.
    """
    if isinstance(source, list | tuple):
        from bigopt_plugins.transfer._ranking import best_source

        chosen: Source | None
        source, chosen = best_source(run, fit, list(source), epochs)
    else:
        chosen = _resolved(run, fit, source, epochs)
    same = chosen is not None and chosen.classes == class_names(run.data)
    folder = run_folder(source)
    if folder is not None:
        _load(run, folder, same)
    elif chosen is not None:
        copied, new = take_over(run.model, chosen.model, None if same else head_name(run.model))
        run.report.note(f"transfer took over {copied} tensors from {chosen.data.name}; new: {', '.join(new) or 'none'}")
    return chosen


def run_folder(source: Any) -> str | None:
    """The run folder that a source's model comes from; None where it is built here."""
    model = source.get("model") if isinstance(source, Mapping) else source
    if isinstance(model, str) and (Path(model) / "structure.json").is_file():
        return str(Path(model).resolve())
    return None


def _resolved(run: Run, fit: Fit, source: Any, epochs: int | None) -> Source | None:
    """The source; None for the folder of a run whose data cannot be had any more."""
    try:
        return resolve(run, fit, source, epochs=epochs)
    except RequestError as error:
        if run_folder(source) is None:
            raise
        run.report.note(f"transfer: classes taken as other ones than the source's, whose data cannot be used: {error}")
        return None


def _load(run: Run, folder: str, same: bool) -> None:
    """The weights and the structure of a run, in this run's model; the head stays new unless the classes agree."""
    cut = head_name(run.model)
    fresh = copy.deepcopy(run.model.get_submodule(cut))
    run.model = run.build.model({**run.settings.extra["model"], "weights": folder}, run.data, new_head=True)
    head = run.model.get_submodule(cut)
    if not same and [p.shape for p in head.parameters()] == [p.shape for p in fresh.parameters()]:
        head.load_state_dict(fresh.state_dict())
    run.report.note(f"transfer: weights of {folder}; the head is {'kept' if same else 'new'}")
