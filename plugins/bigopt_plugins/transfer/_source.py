"""Where knowledge comes from: a source dataset with a model trained on it, or an earlier run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from bigopt import registry
from bigopt.data import resize_for
from bigopt.vocabulary.data import Data
from bigopt.vocabulary.errors import RequestError
from bigopt.vocabulary.part import Fit
from bigopt.vocabulary.run import Run
from bigopt.vocabulary.task import Task

SHOWN = 12
"""Class names of each side that a message lists."""


@dataclass(frozen=True)
class Source:
    """A source task.

    Attributes:
        name: what messages and tables call it.
        data: its dataset; images have the target's size.
        model: a network for its classes, trained unless asked otherwise.
        classes: its class names in label order; numbers where the dataset has no names.
        folder: the run folder that the model came from; None if it was built here.
    """

    name: str
    data: Data
    model: nn.Module
    classes: tuple[str, ...]
    folder: str | None = None


def resolve(
    run: Run,
    fit: Fit,
    source: str | Mapping[str, Any] | None,
    *,
    epochs: int | None = None,
    trained: bool = True,
) -> Source:
    """The source that ``transfer.source`` speaks about.

    A model that comes without weights is trained on the source data, through the stage cache, so that a sweep trains it
    once. Datasets with an argument ``size`` give images of the target's size unless it is set.

    Args:
        run: the target's run.
        fit: trains the source model.
        source: a dataset's name; a run folder; or a mapping with ``dataset``, unless it is this run's ``model``, and,
            unless it is ``optimizer.lr``, the peak learning rate ``lr`` with which the source is trained.
        epochs: passes over the source data; None means ``trainer.max_epochs``.
        trained: False gives the freshly built model of a dataset, for methods that train on both at once.

    Raises:
        RequestError: nothing or something else is named, or what is named cannot be used.
    """
    if is_folder(source):
        data = _dataset(run, str(source))
        return Source(str(source), data, run.build.model(str(source), data), class_names(data), str(source))
    mapping = {"dataset": source} if isinstance(source, str) else dict(source or {})
    keys = ("dataset", "model", "lr") if trained else ("dataset", "model")
    if set(mapping) - set(keys) or not mapping.get("dataset"):
        raise RequestError(
            f"transfer.source: got {source!r}, expected a dataset's name, a run folder, or a mapping with "
            f"{', '.join(keys[:-1])} and {keys[-1]}"
        )
    lr = mapping.get("lr")
    if lr is not None and not (isinstance(lr, int | float) and lr > 0):
        raise RequestError(f"transfer.source.lr: got {lr!r}, expected a rate above 0")
    spec = mapping.get("model") or {**run.settings.extra["model"], "weights": None}
    data = _dataset(run, mapping["dataset"], spec)
    model = run.build.model(spec, data)
    weights = is_folder(spec) or (isinstance(spec, Mapping) and spec.get("weights"))
    if trained and not weights:
        fork = run.fork(model=model, parts=[])
        fork.data, fork.task = data, Task.of(data.schema, run.task.label_smoothing)
        fit(fork, epochs, lr=lr, name="source", share=True)
        run.history += fork.history
        model = fork.model
    return Source(data.name, data, model, class_names(data), str(spec) if is_folder(spec) else None)


def is_folder(source: object) -> bool:
    """Whether a text names a run folder; names of plugins are identifiers."""
    return isinstance(source, str) and bool(source) and not source.isidentifier()


def class_names(data: Data) -> tuple[str, ...]:
    """Class names in label order; the labels themselves where a dataset has no names."""
    return data.schema.class_names or tuple(str(label) for label in range(data.schema.num_classes))


def align(
    source: Sequence[str], target: Sequence[str], label_map: Mapping[str, str] | None = None, partial: bool = False
) -> Tensor:
    """The target's label of each source class, by name.

    Args:
        source: source class names, in label order.
        target: target class names, in label order.
        label_map: source class name by target class name, where the two differ.
        partial: whether source classes may be left over (-1 in the result).

    Returns:
        ``(source classes,)`` int64, -1 where the target has no such class.

    Raises:
        RequestError: a target class without its source class (or the other way round unless ``partial``), or a map of
            unknown names; one line with both sides.
    """
    given = {str(name): str(other) for name, other in (label_map or {}).items()}
    wanted = [given.get(name, name) for name in target]
    lacking = [name for name in wanted if name not in source]
    unknown = [name for name in given if name not in target]
    spare = [] if partial else [name for name in source if name not in wanted]
    if lacking or unknown or spare or len(set(wanted)) < len(wanted):
        raise RequestError(
            f"transfer: source and target have different classes: source {_listed(source)}; target {_listed(target)}"
            + (f"; mapped {given}" if given else "; name the pairs in transfer.label_map={target: source}")
        )
    labels = {name: label for label, name in enumerate(wanted)}
    return torch.tensor([labels.get(name, -1) for name in source])


def _dataset(run: Run, spec: Any, model: Any = None) -> Data:
    """A dataset in the target's image size where it can be had, and as large as the source model needs."""
    data = run.build.dataset(_sized(spec, run.data))
    name = model.get("name") if isinstance(model, Mapping) else model
    if data.schema.kind != "image" or not isinstance(name, str) or is_folder(name):
        return data
    return resize_for(data, int(getattr(registry.load("models", name), "min_size", 0)))


def _sized(spec: Any, target: Data) -> Any:
    """The dataset's settings with the target's image size, if it takes a size and none is set."""
    settings = {"name": spec} if isinstance(spec, str) and not is_folder(spec) else spec
    if not isinstance(settings, Mapping) or target.schema.kind != "image" or settings.get("size") is not None:
        return spec
    plugin = registry.discover()["datasets"].get(str(settings.get("name")))
    takes = plugin is not None and any(argument.name == "size" for argument in plugin.arguments or ())
    size = target.details.get("enlarged_from", target.schema.shape)[-1]  # the source is then enlarged like the target
    return {**settings, "size": size} if takes else spec


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(names[:SHOWN]) + (", …" if len(names) > SHOWN else "")
    return f"[{shown}]"
