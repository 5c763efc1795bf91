"""Feature matching: a new extractor whose features are mapped to an old model's, and classified by the old head."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from bigopt.data import fingerprint
from bigopt.vocabulary.data import TensorSplit
from bigopt.vocabulary.errors import RequestError
from bigopt.vocabulary.objective import Monitor
from bigopt.vocabulary.part import Fit, Part
from bigopt.vocabulary.run import Run
from bigopt.vocabulary.task import Task
from bigopt_plugins.transfer._features import Standardize, features, fold
from bigopt_plugins.transfer._layers import dense, head_name, put_head, run_folder, seeded
from bigopt_plugins.transfer._matching import matching_error, procrustes, ridge
from bigopt_plugins.transfer._source import align, class_names, resolve


class FeatureMatching(Part):
    """Trains the model, learns the map from its features to an old model's, and classifies with the old model's head.

    The map is learned on the two models' features of the same training samples; the idea is that of SimKD (Chen et al.
    2022, arXiv:2203.14001), which reuses a teacher's classifier on a student's features, with the extractor trained on
    its own task first. Map and old head are multiplied into one layer, so that the exported model pays for neither. The
    table ``feature_matching`` tells how far the features are off, and what that costs in accuracy.

    Args:
        source: the old model: a run folder, a dataset's name, or a mapping with ``dataset``, ``model`` and ``lr``; it
            is trained first unless it comes trained. Its classes must include the target's.
        source_epochs: passes over the source; null means ``trainer.max_epochs``.
        map: ``ridge``: regularised linear regression; ``mlp``: one hidden layer; ``procrustes``: rotation and scale,
            where both have equally many features.
        ridge: strength λ of ``ridge``, beside features of variance 1.
        hidden: hidden units of ``mlp``.
        map_epochs: passes with which ``mlp`` is trained; null means ``trainer.max_epochs``.
        label_map: the old class by the new one, ``{target: source}``, where names differ.

    Raises:
        RequestError: an argument is out of range.
    """

    space: ClassVar[dict[str, str]] = {"ridge": "tag(log,interval(1e-4,1e2))"}

    def __init__(
        self,
        source: str | Mapping[str, Any] | None = None,
        source_epochs: int | None = None,
        map: Literal["ridge", "mlp", "procrustes"] = "ridge",
        ridge: float = 0.001,
        hidden: int = 256,
        map_epochs: int | None = None,
        label_map: dict[str, str] | None = None,
    ) -> None:
        problems = []
        if not source:
            problems.append("source: got nothing, expected the old model: a run folder, a dataset or a mapping")
        epochs = {"source_epochs": source_epochs, "map_epochs": map_epochs}
        problems += [f"{n}: got {v}, expected at least 1" for n, v in epochs.items() if v is not None and v < 1]
        if ridge <= 0:
            problems.append(f"ridge: got {ridge}, expected a strength above 0")
        if hidden < 1:
            problems.append(f"hidden: got {hidden}, expected at least 1")
        if problems:
            raise RequestError(problems)
        self.source = source
        self.source_epochs = source_epochs
        self.map = map
        self.ridge = ridge
        self.hidden = hidden
        self.map_epochs = map_epochs
        self.label_map = label_map
        self._old: nn.Module | None = None
        self._rows: list[int] = []

    def prepare(self, run: Run, fit: Fit) -> None:
        """Loads or trains the old model, once it is sure that its classes can be used."""
        if run.task.name != "classification":
            raise RequestError("feature_matching needs classes: the old model's head names them")
        if run_folder(self.source) is None:
            self._place(run, resolve(run, fit, self.source, trained=False).classes)
        source = resolve(run, fit, self.source, epochs=self.source_epochs)
        self._rows = self._place(run, source.classes)
        ours, theirs = run.data.schema, source.data.schema
        if (ours.kind, ours.shape) != (theirs.kind, theirs.shape):
            raise RequestError(
                f"transfer.source: the old model takes {theirs.kind} {list(theirs.shape)}, the target has {ours.kind} "
                f"{list(ours.shape)}; give both the same shape"
            )
        self._old = source.model.eval().requires_grad_(False)

    def finish(self, run: Run, fit: Fit) -> None:
        """Learns the map, and puts the old head behind it."""
        from bigopt.train import evaluate

        assert self._old is not None, "prepare was not called"
        cut, old_cut = head_name(run.model), head_name(self._old)
        new = {name: features(run, run.model, cut, split) for name, split in _splits(run)}
        old = {name: features(run, self._old, old_cut, split) for name, split in _splits(run)}
        before = evaluate(run, run.data.val)["accuracy"]
        head = self._old.get_submodule(old_cut)
        assert isinstance(head, nn.Linear)
        with torch.no_grad():
            bias = torch.zeros(len(self._rows)) if head.bias is None else head.bias[self._rows].cpu()
            weight = head.weight[self._rows].cpu()
            with_old = _accuracy(old["val"] @ weight.T + bias, run.data.val.y)
        layers = self._layers(run, fit, new, old)
        with torch.no_grad():
            error = {name: matching_error(_through(layers, new[name]), old[name]) for name in new}
            last_weight, last_bias = layers[-1]
            layers[-1] = weight.double() @ last_weight.double(), weight.double() @ last_bias.double() + bias.double()
            self._put(run, cut, layers)
        after = evaluate(run, run.data.val)["accuracy"]
        row = {
            "map": self.map,
            "features": new["train"].shape[1],
            "old_features": old["train"].shape[1],
            "error/train": error["train"],
            "error/val": error["val"],
            "accuracy/own_head": before,
            "accuracy/old_model": with_old,
            "accuracy/matched": after,
            "extra_error/own_head": before - after,
            "extra_error/old_model": with_old - after,
        }
        run.report.table("feature_matching", [row])
        run.report.value("feature_matching", row)
        self._old = None

    @staticmethod
    def replay(model: nn.Module, entry: Mapping[str, Any]) -> None:
        """Puts a head of the recorded sizes in place.

        Raises:
            RequestError: the entry does not fit the model.
        """
        put_head(model, entry)

    def _place(self, run: Run, classes: tuple[str, ...]) -> list[int]:
        """The old label of each of the target's classes."""
        labels = align(classes, class_names(run.data), self.label_map, partial=True)
        return [int((labels == label).nonzero()[0]) for label in range(run.task.num_classes)]

    def _layers(
        self, run: Run, fit: Fit, new: dict[str, Tensor], old: dict[str, Tensor]
    ) -> list[tuple[Tensor, Tensor]]:
        """The map as weights ``(out, in)`` and biases of linear layers with ReLU between them."""
        if self.map == "ridge":
            return [ridge(new["train"], old["train"], self.ridge)]
        if self.map == "procrustes":
            rotation, scale, bias = procrustes(new["train"], old["train"])
            return [(scale * rotation.T, bias)]
        return self._perceptron(run, fit, new, old)

    def _perceptron(
        self, run: Run, fit: Fit, new: dict[str, Tensor], old: dict[str, Tensor]
    ) -> list[tuple[Tensor, Tensor]]:
        scale = Standardize.of(old["train"])
        splits = {name: TensorSplit(new[name], scale(old[name])) for name in new}
        inputs, outputs = new["train"].shape[1], old["train"].shape[1]
        with seeded(run, "matching"):
            net = nn.Sequential(Standardize.of(new["train"]), dense([inputs, self.hidden, outputs]))
        fork = run.fork(model=net, parts=[])
        fork.data = replace(
            run.data,
            schema=replace(
                run.data.schema, task="regression", kind="tabular", shape=(inputs,), num_classes=outputs, class_names=()
            ),
            train=splits["train"],
            val=splits["val"],
            test=None,
            unlabelled=None,
            mean=None,
            std=None,
            fingerprint=fingerprint(splits, {"matching": run.data.fingerprint}),
        )
        fork.task, fork.monitor, fork.baseline = Task("regression", outputs), Monitor("val/loss", "min"), None
        fit(fork, self.map_epochs, name="matching")
        first, last = (module for module in fold(net).modules() if isinstance(module, nn.Linear))
        std, mean = scale.std, scale.mean
        return [
            (first.weight.detach(), first.bias.detach()),
            (last.weight.detach() * std.unsqueeze(1), last.bias.detach() * std + mean),
        ]

    def _put(self, run: Run, cut: str, layers: list[tuple[Tensor, Tensor]]) -> None:
        """Writes the layers into the model's own head, or into a new one where that has another form."""
        head = run.model.get_submodule(cut)
        if len(layers) > 1 or not isinstance(head, nn.Linear) or head.bias is None:
            sizes = [layers[0][0].shape[1], *(len(bias) for _, bias in layers)]
            entry: Any = {"op": "head", "plugin": "feature_matching", "kind": "transfer", "at": cut, "sizes": sizes}
            put_head(run.model, entry)
            changed: Any = run.model
            changed.changes.append(entry)
        linear = [module for module in run.model.get_submodule(cut).modules() if isinstance(module, nn.Linear)]
        for module, (weight, bias) in zip(linear, layers, strict=True):
            module.weight.copy_(weight)
            module.bias.copy_(bias)


def _splits(run: Run) -> list[tuple[str, Any]]:
    return [("train", run.data.train), ("val", run.data.val)]


def _through(layers: list[tuple[Tensor, Tensor]], x: Tensor) -> Tensor:
    for place, (weight, bias) in enumerate(layers):
        x = x @ weight.T + bias
        x = x.relu() if place < len(layers) - 1 else x
    return x


def _accuracy(logits: Tensor, y: Tensor) -> float:
    return float((logits.argmax(1) == y).double().mean())
