"""Everything around the spine: building, measuring, writing down, and the right ending whatever happens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

import torch
from torch import nn

from bigopt import registry
from bigopt.pipeline.build import Builder, fitting_data
from bigopt.pipeline.driver import step_epochs
from bigopt.pipeline.relay import Relay
from bigopt.vocabulary.errors import BigoptError, Interrupted, Pruned
from bigopt.vocabulary.network import Network
from bigopt.vocabulary.objective import parse_objective
from bigopt.vocabulary.part import Part
from bigopt.vocabulary.run import Run
from bigopt.vocabulary.settings import Settings, StepOptions
from bigopt.vocabulary.task import Task

Status = Literal["finished", "failed", "interrupted", "pruned"]


class Session:
    """One run in progress, from its configuration to its report.

    Args:
        checked: the checked configuration.
        folder: the run's folder; files of an earlier start there are gone on with.
        overrides: what the command line said.
        parent: MLflow run of the sweep that this run is a trial of; None outside sweeps.
        progress: told of long work; None for nobody. If it has a method ``plan``, it is told which stages there are,
            each with the epochs that it trains for.
        test: whether the test split may be read; None means outside sweeps only.

    Attributes:
        run: what Parts see.
        fit: the only way to train.
        steps: compression steps in order: name, plugin, Part, options.
        measures: what was measured, by stage.
    """

    def __init__(
        self,
        checked: Any,
        folder: Path,
        *,
        overrides: Sequence[str],
        parent: str | None,
        progress: Any,
        test: bool | None = None,
    ) -> None:
        self.checked = checked
        self.folder = Path(folder)
        self.overrides = list(overrides)
        self.parent = parent
        self.tests = parent is None if test is None else test
        self.progress = progress
        self.settings: Settings = checked.settings
        self.measures: dict[str, Any] = {}
        self.report: dict[str, Any] = {}
        self.run: Run
        self.steps: list[tuple[str, str, Part, StepOptions]]
        self._recorded = 0
        self._closed = False

    def __enter__(self) -> Session:
        from bigopt.train import Fitter, Signals
        from bigopt.train.ddp import rank

        self.leader = rank() == 0
        self.folder.mkdir(parents=True, exist_ok=True)
        with ExitStack() as stack:
            self.signals = stack.enter_context(Signals())
            self._build()
            self.fit = Fitter(self.folder, self._store(), self.signals)
            if self.leader:
                self.checked.save(self.folder)
                self._track()
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if not self._closed:
                self._end(_status(error), _reason(error))
        finally:
            self._stack.close()

    def row(
        self,
        name: str,
        plugin: str | None,
        epochs: int = 0,
        seconds: float = 0.0,
        *,
        model: nn.Module | None = None,
        strength: float | None = None,
    ) -> None:
        """Exports and measures the model as it stands, and writes its row.

        Args:
            name: the stage.
            plugin: plugin behind it; None for the baseline and the control.
            epochs: recovery epochs.
            seconds: wall time of the stage, without measuring.
            model: another model than the run's (the control).
            strength: what the step applied, for the report.
        """
        from bigopt.train.ddp import barrier

        self.signals.check()
        if not self.leader:
            barrier()
            return
        measured = self._measure(name, model if model is not None else self.run.model)
        self.measures[name] = measured
        if strength is not None:
            self.run.report.value("strength", strength)
        self.ledger.follow(self.run.data)
        self.ledger.monitor = self.run.monitor  # a Part may judge by something that needs no labels
        history, self._recorded = self.run.history[self._recorded :], len(self.run.history)
        self.ledger.add(
            name,
            plugin,
            measured,
            recovery_epochs=epochs,
            seconds=seconds,
            control=name == "control",
            history=history,
        )
        stage = self.ledger.report()["stages"][-1]
        self.tracker.stage(name, flat_figures(stage), step=len(self.ledger.stages))
        if model is None:
            self._keep_structure()
        barrier()

    def close(self) -> dict[str, Any]:
        """Tests once, writes the lasting files, and gives the report."""
        self.signals.check()
        if self.leader:
            self._ship()
            self._test()
        self._end("finished", None)
        return self.report

    def _build(self) -> None:
        from bigopt.report import Ledger, environment

        builder = Builder(self.checked.seed, self.settings.tracking.uri, keep=not self.tests)
        data = fitting_data(builder.dataset(self.checked.dataset), self.checked.model)
        if not self.tests:
            data.test = None
        task = Task.of(data.schema, self.settings.trainer.label_smoothing)
        if not self.checked.objective_given and task.name == "regression":
            self.settings = replace(self.settings, objective={"val/loss": "min"})
        self.ledger = Ledger(
            self.folder,
            settings=self.settings,
            data=data,
            task=task,
            seed=self.checked.seed,
            environment=environment(self.settings.measure.threads),
            config=self.checked.resolved,
            writes=self.leader,
        )
        builder.note = self.ledger.note
        self.run = Run(
            model=builder.model(self.checked.model, data),
            data=data,
            task=task,
            monitor=parse_objective(self.settings.objective)[0],
            settings=self.settings,
            folder=self.folder,
            seed=self.checked.seed,
            build=builder,
            report=self.ledger,
            progress=Relay(self.progress if self.leader else None, self._epoch),
            parts=[self._part("transfer", self.checked.transfer, "transfer"), *self._recipe()],
        )
        self.steps = [
            (
                step.name,
                step.plugin,
                registry.build("compression", step.plugin, step.arguments, path=f"compression.{step.name}"),
                step.options,
            )
            for step in self.checked.compression
        ]

        self._announce()

    def _announce(self) -> None:
        """Tells whoever follows the run which stages there are."""
        announce = getattr(self.progress, "plan", None)
        if announce is not None and self.leader:
            steps = {name: step_epochs(self.run, part, options) for name, _, part, options in self.steps}
            announce({"baseline": self.settings.trainer.max_epochs} | steps)

    def _recipe(self) -> list[Part]:
        return [
            registry.build("recipe", step.plugin, step.arguments, path=step.path or f"recipe.{step.name}")
            for step in self.checked.recipe
        ]

    def _part(self, kind: str, spec: dict[str, Any], path: str) -> Part:
        arguments = {name: value for name, value in spec.items() if name != "name"}
        part: Part = registry.build(kind, spec["name"], arguments, path=path)
        return part

    def _epoch(self, stage: str, epoch: int, values: Mapping[str, float]) -> None:
        if self.leader:
            self.tracker.epoch(stage, epoch, values)

    def _store(self) -> Any:
        from bigopt.store import Store

        where = self.settings.cache
        if where == "off":
            return None
        return Store(Path(where) if where else Path.cwd() / ".bigopt" / "cache")

    def _track(self) -> None:
        from bigopt.tracking import make_tracker

        self.tracker = make_tracker(self.settings.tracking, self.folder, Path.cwd())
        self.tracker.start(
            self.folder.name,
            params=self.checked.resolved,
            tags={"overrides": " ".join(self.overrides), "bigopt.folder": str(self.folder)},
            parent=self.parent,
        )

    def _measure(self, name: str, model: nn.Module) -> Any:
        from bigopt.measure.stage import measure_stage

        bits = next((part.bits() for step, _, part, _ in self.steps if step == name), None)
        return measure_stage(
            self.run,
            self.folder,
            name,
            self.settings,
            self.measures.get("baseline"),
            model=model,
            bits=bits,
            history=self.run.history[self._recorded :],
        )

    def _keep_structure(self) -> None:
        """Keeps shapes and weights of the newest model that can still be trained."""
        from bigopt.pipeline.structure import save_structure

        if isinstance(self.run.model, Network):
            spec = self.run.settings.extra.get("model", self.checked.model)  # a Part may have put another net in place
            save_structure(self.run.model, dict(spec), self.run.model.changes, self.folder)

    def _ship(self) -> None:
        """Copies the last stage's file to ``model.onnx`` and writes ``model.pt2``."""
        from bigopt.measure import export_pt2
        from bigopt.store import write_atomic

        final = self.measures[self.ledger.final().name]
        if final.onnx is None:
            return
        write_atomic(self.folder / "model.onnx", Path(final.onnx).read_bytes())
        example = self.run.data.train.take(torch.arange(min(2, len(self.run.data.train))))
        try:
            export_pt2(self.run.model, example, self.folder / "model.pt2")
        except BigoptError as error:
            self.ledger.note(f"model.pt2 was not written: {error}")
        if self.settings.tracking.log_model:
            self.tracker.model(self.folder / "model.onnx", example.numpy())

    def _test(self) -> None:
        """Reads the test split, once, for the baseline, the control and the final file."""
        from bigopt.measure import predict_onnx
        from bigopt.train import predict

        if self.run.data.test is None:
            return
        split = self.run.data.read_test()
        size = self.settings.trainer.eval_batch_size
        names = {"baseline": "baseline", "control": "control", "final": self.ledger.final().name}
        models = {"baseline": self.run.baseline, "final": self.run.model}
        logits = {}
        for role, stage in names.items():
            measured = self.measures.get(stage)
            if measured is None:
                continue
            if measured.onnx is not None:
                logits[role] = predict_onnx(measured.onnx, split, size)
            elif (model := models.get(role)) is not None:
                logits[role] = predict(model, split, size)
        self.ledger.test(logits["baseline"], logits["final"], split.y, logits.get("control"))

    def _end(self, status: Status, reason: str | None) -> None:
        self._closed = True
        self.report = self.ledger.finish(status, reason, html=self.tests)
        if not self.leader:
            return
        for path in sorted(self.folder.iterdir()) if self.settings.tracking.artifacts else []:
            if path.name in ARTIFACT_FOLDERS:
                self.tracker.artifact(path, path.name)
            elif path.is_file() and path.suffix in ARTIFACTS:
                self.tracker.artifact(path)
        self.tracker.finish(status, reason)


ARTIFACTS = {".json", ".csv", ".html", ".onnx", ".pt2", ".safetensors", ".yaml", ".png", ".svg"}
ARTIFACT_FOLDERS = {"plots", "tables", ".hydra"}


def flat_figures(stage: dict[str, Any]) -> dict[str, float]:
    """The numbers of a report's row, nested ones under dotted names."""
    figures: dict[str, float] = {}

    def walk(prefix: str, value: Any) -> None:
        if isinstance(value, bool) or value is None:
            return
        if isinstance(value, int | float):
            figures[prefix] = float(value)
        elif isinstance(value, dict):
            for name, item in value.items():
                walk(f"{prefix}.{name}" if prefix else str(name), item)

    walk("", {name: value for name, value in stage.items() if name not in ("metrics", "values", "history")})
    return figures | {name: value for name, value in stage["metrics"].items() if isinstance(value, int | float)}


def _status(error: BaseException | None) -> Status:
    if isinstance(error, Interrupted | KeyboardInterrupt):
        return "interrupted"
    return "pruned" if isinstance(error, Pruned) else "failed"


def _reason(error: BaseException | None) -> str | None:
    if error is None:
        return "the run ended before its last stage"
    return str(error).splitlines()[0] if str(error) else type(error).__name__
