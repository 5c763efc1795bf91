"""What a Part can see and change."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from torch import Tensor, nn

from bigopt.vocabulary.answers import Answers
from bigopt.vocabulary.batch import Output
from bigopt.vocabulary.settings import StepOptions

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bigopt.vocabulary.data import Data
    from bigopt.vocabulary.objective import Monitor
    from bigopt.vocabulary.part import Part
    from bigopt.vocabulary.settings import Settings
    from bigopt.vocabulary.task import Task


@dataclass
class History:
    """What one fit recorded.

    Attributes:
        name: the fit's name, as the report shows it.
        epochs: one mapping per epoch: ``epoch`` (1-based), ``train/loss``, every loss term,
            ``val/…``, ``lr``, ``seconds``.
        best_epoch: the epoch whose weights the model was left with (0: the weights it started from).
        seconds: wall time; 0.0 when the result came from the cache.
        cached: True when nothing was trained because the result was known.
        notes: what a reader should know, one line each (precision chosen, early stop).
    """

    name: str
    epochs: list[dict[str, float]] = field(default_factory=list)
    best_epoch: int = 0
    seconds: float = 0.0
    cached: bool = False
    notes: list[str] = field(default_factory=list)


class Builder(Protocol):
    """Lets a Part build further models and datasets by name, as the configuration would."""

    def model(self, spec: Mapping[str, Any] | str, data: Data, *, new_head: bool = False) -> nn.Module:
        """A fresh :class:`~bigopt.vocabulary.network.Network` for this data.

        Args:
            spec: a model plugin's name, a mapping with ``name`` and arguments (and ``weights``), or a run folder.
            data: gives channels, size, classes.
            new_head: where weights are for other classes, take all but their last layer.
        """
        ...

    def dataset(self, spec: Mapping[str, Any] | str) -> Data:
        """A dataset by its plugin's name, by a mapping with ``name`` and arguments, or that of a run folder."""
        ...

    def fetch(self, uri: str, into: Path, *, onnx: bool = False) -> Path:
        """Files behind ``runs:/…`` or ``models:/…``: the weights, or the ONNX file; a file or a folder in ``into``."""
        ...


class Reporter(Protocol):
    """Where a Part leaves figures, tables and pictures for the report."""

    def note(self, text: str) -> None:
        """One line that a reader of the report should know."""
        ...

    def table(self, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """A table, kept as CSV beside the report and shown in it."""
        ...

    def value(self, name: str, value: Any) -> None:
        """A JSON-able fact about the current stage."""
        ...


class Progress(Protocol):
    """Told of what happens during long work; the default draws a bar, a sweep reports upwards."""

    def start(self, name: str, total: int) -> None:
        """Work of ``total`` steps begins."""
        ...

    def advance(self, steps: int = 1, **values: float) -> None:
        """Some steps are done; values are shown beside the bar."""
        ...

    def stop(self) -> None:
        """The work that was started last is over."""
        ...

    def epoch(self, stage: str, epoch: int, values: Mapping[str, float]) -> None:
        """An epoch ended (``epoch`` counts over the whole run); may raise :class:`Pruned`."""
        ...


@dataclass
class Run:
    """One pipeline in progress.

    Attributes:
        model: the :class:`~bigopt.vocabulary.network.Network` being trained and compressed; Parts may replace it.
        data: the dataset.
        task: loss and metrics.
        monitor: metric and mode by which fits keep their best epoch; a Part may replace it (label-free selection).
        settings: everything the configuration says about training and measuring.
        folder: the run's folder.
        seed: every random choice follows from it.
        build: builds further models and datasets.
        report: takes notes and tables.
        progress: told of long work.
        parts: the Parts whose hooks act in a fit unless the caller names others.
        baseline: frozen copy of the model as the first stage left it; None before that.
        answers: what the baseline says of training samples.
        history: every fit's record so far.
        options: what the driver was told about the compression step in progress (``ignore``, ``strict``, …).
        depth: how many forks lie between this run and the real one.
    """

    model: nn.Module
    data: Data
    task: Task
    monitor: Monitor
    settings: Settings
    folder: Path
    seed: int
    build: Builder
    report: Reporter
    progress: Progress
    parts: list[Part] = field(default_factory=list)
    baseline: nn.Module | None = None
    answers: Answers = field(default_factory=Answers)
    history: list[History] = field(default_factory=list)
    options: StepOptions = field(default_factory=StepOptions)
    depth: int = 0

    def forward(self, x: Tensor, taps: Sequence[str] = (), model: nn.Module | None = None) -> Output:
        """Logits of raw inputs ``(N, …)``, with what the named modules give or take (see :func:`recording`).

        Raises:
            KeyError: a name in ``taps`` is no module of the model.
        """
        model = model if model is not None else self.model
        with recording(model, taps) as seen:
            logits = model(x)
        return Output(logits, dict(seen))

    def fork(self, model: nn.Module | None = None, parts: Sequence[Part] | None = None) -> Run:
        """A run to try something in without consequence: its own copy of the model, its own history and report."""
        return replace(
            self,
            model=model if model is not None else copy.deepcopy(self.model),
            parts=list(self.parts if parts is None else parts),
            history=[],
            report=Silent(),
            depth=self.depth + 1,
        )


class Silent:
    """A reporter that keeps nothing."""

    def note(self, text: str) -> None:
        """Drops the note."""

    def table(self, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Drops the table."""

    def value(self, name: str, value: Any) -> None:
        """Drops the value."""


INPUT = "/input"
"""Ends the name of a tap that wants a module's input instead of its output."""


@contextmanager
def recording(model: nn.Module, names: Sequence[str]) -> Iterator[dict[str, Tensor]]:
    """Records the outputs of named modules while the block runs; of ``<name>/input`` the first input.

    Raises:
        KeyError: a name is no module of the model.
    """
    modules = dict(model.named_modules())
    seen: dict[str, Tensor] = {}

    def keep(name: str) -> Callable[[nn.Module, Any, Any], None]:
        def hook(_module: nn.Module, _inputs: Any, output: Any) -> None:
            seen[name] = output[0] if isinstance(output, tuple) else getattr(output, "last_hidden_state", output)

        return hook

    def keep_input(name: str) -> Callable[[nn.Module, Any], None]:
        def hook(_module: nn.Module, inputs: Any) -> None:
            seen[name] = inputs[0]

        return hook

    handles = [
        modules[name.removesuffix(INPUT)].register_forward_pre_hook(keep_input(name))
        if name.endswith(INPUT)
        else modules[name].register_forward_hook(keep(name))
        for name in names
    ]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()
