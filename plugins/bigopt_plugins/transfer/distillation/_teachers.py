"""Where teachers come from: trained on the spot, a run folder, a folder of transformers, ONNX, the tracking store."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bigopt.train import predict
from bigopt.vocabulary.errors import RequestError
from bigopt.vocabulary.part import Fit, Part
from bigopt.vocabulary.run import Run
from bigopt_plugins.transfer._source import is_folder
from bigopt_plugins.transfer.distillation._foreign import onnx_file, tracked, transformers_folder

SCHEMES = ("runs:/", "models:/")


@dataclass(frozen=True)
class Teacher:
    """One teacher, ready to answer.

    Attributes:
        name: what the report calls it.
        origin: where it comes from.
        model: gives logits of raw inputs, in evaluation mode, frozen.
        epochs: passes with which it was trained here.
        metric: the monitored metric of its answers on validation, None where it is not among the task's.
        answers: on validation, ``(N, K)`` or ``(N, T)``.
    """

    name: str
    origin: str
    model: nn.Module
    epochs: int
    metric: float | None
    answers: Tensor

    def row(self, metric: str, weight: float) -> dict[str, Any]:
        """A row of the table of teachers."""
        return {
            "teacher": self.name,
            "origin": self.origin,
            "parameters": sum(parameter.numel() for parameter in self.model.parameters()),
            "epochs": self.epochs,
            metric: self.metric,
            "weight": weight,
        }


def gather(
    run: Run, fit: Fit, specs: Sequence[Any], epochs: int | None, lr: float | None, parts: Sequence[Part], layers: bool
) -> list[Teacher]:
    """All teachers.

    Args:
        run: the student's run.
        fit: trains those that come untrained, through the stage cache.
        specs: of each: a plugin's name, a mapping with ``name``, a folder, an ONNX file, ``runs:/…`` or ``models:/…``;
            None for the student's own architecture.
        epochs: passes with which each is trained; None leaves trained ones and gives the others ``trainer.max_epochs``.
        lr: peak learning rate of teachers that are trained.
        parts: whose hooks act while one is trained; none is prepared yet.
        layers: whether outputs of inner layers are wanted.

    Raises:
        RequestError: a teacher that cannot be had, or does not answer for these classes.
    """
    return [_one(run, fit, spec, number, epochs, lr, parts, layers) for number, spec in enumerate(specs)]


def _one(
    run: Run,
    fit: Fit,
    spec: Any,
    number: int,
    epochs: int | None,
    lr: float | None,
    parts: Sequence[Part],
    layers: bool,
) -> Teacher:
    model, origin, trained = _built(run, spec, number, epochs, layers)
    fork = run.fork(model=model, parts=[])
    passes = 0
    if epochs != 0 and not (trained and epochs is None):
        if not any(True for _ in model.parameters()):
            raise RequestError(f"transfer.teacher_epochs: {spec} can only answer; it cannot be trained")
        fork.parts = [copy.deepcopy(part) for part in parts]
        for part in fork.parts:
            part.prepare(fork, fit)
        options: dict[str, Any] = {"lr": lr} if lr is not None else {}
        history = fit(fork, epochs, name="teacher" if number == 0 else f"teacher-{number + 1}", share=True, **options)
        for part in fork.parts:
            part.finish(fork, fit)
        passes = len(history.epochs)
        run.report.note(f"distillation: {_shown(spec, number)} trained, best epoch {history.best_epoch}")
    ready = fork.model.eval().requires_grad_(False)
    answers = _answers(run, ready, spec)
    known = run.task.metrics(answers, run.data.val.y)
    metric = known.get(run.monitor.metric.removeprefix("val/"))
    return Teacher(_shown(spec, number), origin, ready, passes, metric, answers)


def _built(run: Run, spec: Any, number: int, epochs: int | None, layers: bool) -> tuple[nn.Module, str, bool]:
    """A teacher, where it comes from, and whether it comes trained."""
    if isinstance(spec, str) and spec.startswith(SCHEMES):
        return tracked(run, spec, layers or bool(epochs)), "tracking store", True
    if isinstance(spec, str) and "://" in spec:
        raise RequestError(f"transfer.teacher: {spec}: nothing is loaded from a URL; use one of {', '.join(SCHEMES)}")
    if isinstance(spec, str) and is_folder(spec):
        return _from_path(run, spec, Path(spec).expanduser(), epochs, layers)
    if spec is None:
        spec = {**run.settings.extra["model"]}
    trained = isinstance(spec, Mapping) and bool(spec.get("weights"))
    builder: Any = run.build
    if number and hasattr(builder, "seed"):  # several of one kind must not start from the same weights
        builder = copy.copy(builder)
        builder.seed = run.seed + 1000 * number
    return builder.model(spec, run.data), "weights" if trained else "trained here", trained


def _from_path(run: Run, spec: str, path: Path, epochs: int | None, layers: bool) -> tuple[nn.Module, str, bool]:
    if path.suffix == ".onnx":
        return onnx_file(path), "ONNX file", True
    if (path / "structure.json").is_file():
        return run.build.model(spec, run.data), "run folder", True
    if (path / "config.json").is_file():
        return transformers_folder(run, path, trained=not epochs), "transformers folder", True
    if (path / "model.onnx").is_file():
        return onnx_file(path / "model.onnx"), "ONNX file", True
    raise RequestError(
        f"transfer.teacher: got {spec!r}, expected a model plugin's name, a mapping with name, a folder with "
        "structure.json, config.json or model.onnx, a file that ends in .onnx, runs:/… or models:/…"
    )


def _answers(run: Run, model: nn.Module, spec: Any) -> Tensor:
    """What a teacher says of the validation split.

    Raises:
        RequestError: it cannot take the data, or answers for other classes.
    """
    from bigopt.train.precision import resolve_accelerator

    trainer = run.settings.trainer
    try:
        device = resolve_accelerator(trainer.accelerator)
        answers = predict(model, run.data.val, trainer.eval_batch_size, device, workers=trainer.workers)
    except RequestError:
        raise
    except Exception as error:  # whatever a foreign file or net answers to inputs that it does not know
        line = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
        shape = list(run.data.schema.shape)
        raise RequestError(f"transfer.teacher: {spec} cannot take samples of shape {shape}: {line}") from error
    if answers.shape[1:] != torch.Size([run.task.num_classes]):
        kind = "classes" if run.task.name == "classification" else "targets"
        raise RequestError(
            f"transfer.teacher: {spec} answers {list(answers.shape[1:])} numbers a sample, the data have "
            f"{run.task.num_classes} {kind}"
        )
    return answers


def _shown(spec: Any, number: int) -> str:
    if spec is None:
        return "own architecture" if number == 0 else f"own architecture {number + 1}"
    return str(spec.get("name", "model")) if isinstance(spec, Mapping) else str(spec)
