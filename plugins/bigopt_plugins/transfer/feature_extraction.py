"""Feature extraction: a frozen extractor that source and target share, with a head of their own each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import nn

from bigopt.store import save_tensors
from bigopt.train import evaluate
from bigopt.vocabulary.data import TensorSplit
from bigopt.vocabulary.errors import RequestError
from bigopt.vocabulary.part import Fit, Part
from bigopt.vocabulary.run import Run
from bigopt.vocabulary.task import Task
from bigopt_plugins.transfer._features import (
    Held,
    cacheable,
    feature_data,
    fold,
    scaled_head,
    train_head_only,
    whole_again,
)
from bigopt_plugins.transfer._layers import dense, freeze_all_but, head_name, put_head, seeded, start_from, unfreeze
from bigopt_plugins.transfer._source import Source


class FeatureExtraction(Part):
    """Trains a head on the features of a frozen network (Donahue et al. 2014, arXiv:1310.1531).

    The extractor keeps its weights and running statistics bit for bit, so that it serves the source, the target and any
    further ``heads`` at once. Its features are computed once: an epoch costs only the head, which learns on
    standardised features (folded into its weights afterwards). With a recipe that changes the inputs, such as
    ``augment``, features cannot be kept, and each step runs the extractor. The exported model holds extractor and head.

    Args:
        source: where the extractor comes from: a dataset's name, a run folder, a mapping with ``dataset``,
            ``model`` and ``lr``, or a list of these, of which LogME chooses. Null keeps the weights that
            the model was built with.
        source_epochs: passes over the source; null means ``trainer.max_epochs``.
        cut: module with which the head begins, such as ``net.classifier``; null means the last linear layer.
        hidden: units of the hidden layers of a new head; empty keeps the model's own.
        heads: further tasks by name, each a dataset as in the configuration; their heads are trained on the same
            extractor, measured, and kept in ``heads/<name>.safetensors`` of the run folder.
        recover_extractor: whether recovery after a compression step trains the extractor too; it is then the target's
            own.

    Raises:
        RequestError: an argument is out of range.
    """

    space: ClassVar[dict[str, str]] = {"hidden": "choice([],[64],[256])"}

    def __init__(
        self,
        source: str | Mapping[str, Any] | list[Any] | None = None,
        source_epochs: int | None = None,
        cut: str | None = None,
        hidden: tuple[int, ...] = (),
        heads: Mapping[str, Any] | None = None,
        recover_extractor: bool = False,
    ) -> None:
        problems = []
        if source_epochs is not None and source_epochs < 1:
            problems.append(f"source_epochs: got {source_epochs}, expected at least 1")
        if any(units < 1 for units in hidden):
            problems.append(f"hidden: got {list(hidden)}, expected positive numbers of units")
        if any(not name.isidentifier() for name in heads or ()):
            problems.append(f"heads: got {sorted(heads or ())}, expected names of letters, digits and _")
        if problems:
            raise RequestError(problems)
        self.source = source
        self.source_epochs = source_epochs
        self.cut = cut
        self.hidden = tuple(hidden)
        self.heads = heads
        self.recover_extractor = recover_extractor
        self._held: Held | None = None
        self._head = ""
        self._rows: list[dict[str, Any]] = []

    def prepare(self, run: Run, fit: Fit) -> None:
        """Loads or trains the extractor, freezes it, and computes its features."""
        if self.source is not None:
            self._rows = source_row(run, start_from(run, fit, self.source, self.source_epochs))
        cut = self.cut if self.cut is not None else head_name(run.model)
        if cut not in dict(run.model.named_modules()) or not list(run.model.get_submodule(cut).parameters()):
            raise RequestError(f"transfer.cut: got {cut!r}, expected a module of the model with parameters")
        if self.hidden:
            entry: dict[str, Any] = {"op": "head", "plugin": "feature_extraction", "kind": "transfer", "at": cut}
            entry |= {"sizes": [_inputs(run, cut), *self.hidden, run.task.num_classes]}
            with seeded(run, "head"):
                self.replay(run.model, entry)
            network: Any = run.model
            network.changes.append(entry)
        freeze_all_but(run.model, cut)
        self._head = cut
        if cacheable(run, self):
            self._held = train_head_only(run, cut)
        else:
            run.report.note("feature_extraction: a recipe may change the inputs, so features are computed in each step")

    def finish(self, run: Run, fit: Fit) -> None:
        """Puts extractor and head together, and trains the further heads."""
        if self._held is not None:
            whole_again(run, self._held)
            self._held = None
        rows = [*self._rows, self._row(run, "target", run.model.get_submodule(self._head), run)]
        rows += [self._further(run, fit, name, spec) for name, spec in (self.heads or {}).items()]
        run.report.table("heads", rows)
        if self.recover_extractor:
            unfreeze(run.model)

    @staticmethod
    def replay(model: nn.Module, entry: Mapping[str, Any]) -> None:
        """Puts a new head of the recorded sizes in place.

        Raises:
            RequestError: the entry does not fit the model.
        """
        put_head(model, entry)

    def _further(self, run: Run, fit: Fit, name: str, spec: Any) -> dict[str, Any]:
        """One more head on the same extractor."""
        raw = run.build.dataset(spec)
        if raw.schema.shape != run.data.schema.shape:
            shapes = f"{list(raw.schema.shape)}, the target's are {list(run.data.schema.shape)}"
            raise RequestError(f"transfer.heads.{name}: its samples are {shapes}; give both the same shape")
        fork = run.fork(model=nn.Identity(), parts=[])
        fork.data = feature_data(run, run.model, self._head, raw)
        assert isinstance(fork.data.train, TensorSplit)
        fork.task = Task.of(raw.schema, run.task.label_smoothing)
        units = fork.data.train.x.flatten(1).shape[1]
        with seeded(run, f"head-{name}"):
            head = dense([units, *self.hidden, raw.schema.num_classes])
        fork.model = scaled_head(
            nn.Sequential(nn.Flatten(), head) if fork.data.train.x.ndim > 2 else head, fork.data.train.x
        )
        fit(fork, name=f"head-{name}")
        row = self._row(fork, name, head, fork)
        save_tensors(run.folder / "heads" / f"{name}.safetensors", fold(fork.model).state_dict(), {})
        return row

    def _row(self, run: Run, name: str, head: nn.Module, judged: Run) -> dict[str, Any]:
        metrics = evaluate(judged, judged.data.val)
        return head_row(name, judged, sum(p.numel() for p in head.parameters()), metrics)


def head_row(name: str, run: Run, parameters: int, metrics: Mapping[str, float]) -> dict[str, Any]:
    """A row of the table of heads."""
    metric = run.monitor.metric
    return {
        "head": name,
        "dataset": run.data.name,
        "classes": run.task.num_classes,
        "parameters": parameters,
        metric: metrics.get(metric.removeprefix("val/")),
    }


def source_row(run: Run, source: Source | None) -> list[dict[str, Any]]:
    """The source's own head in the table of heads: the extractor is the same, so its figures stay what they are."""
    if source is None:
        return []
    fork = run.fork(model=source.model, parts=[])
    fork.data, fork.task = source.data, Task.of(source.data.schema)
    head = source.model.get_submodule(head_name(source.model))
    return [head_row("source", fork, sum(p.numel() for p in head.parameters()), evaluate(fork, source.data.val))]


def _inputs(run: Run, cut: str) -> int:
    """Features that enter a module."""
    from bigopt_plugins.transfer._features import cut_off

    training = run.model.training
    with torch.no_grad(), cut_off(run.model, cut) as model:
        shape = model.eval()(run.data.train.take(torch.arange(2))).shape
    run.model.train(training)
    if len(shape) != 2:
        raise RequestError(f"transfer.hidden: features of shape {list(shape[1:])} enter {cut}, expected a vector")
    return int(shape[1])
