"""Knowledge distillation: a teacher's soft answers train the student."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from bigopt.vocabulary.batch import Batch, Output, Role
from bigopt.vocabulary.errors import RequestError
from bigopt.vocabulary.part import Fit, Part
from bigopt.vocabulary.run import Run


class Distillation(Part):
    """Trains the model on the softened answers of a teacher beside the labels (Hinton et al. 2015, arXiv:1503.02531).

    The loss is ``(1 - alpha) · CE + alpha · T² · KL(teacher_T ‖ student_T)``; for regression, the squared distance to
    the teacher's prediction takes the KL's place. The teacher may be larger or smaller than the student.

    Args:
        teacher: a model plugin's name, a mapping with ``name`` and arguments, or a run folder. Null trains a teacher of
            the student's own architecture (born-again networks, Furlanello et al. 2018, arXiv:1805.04770).
        teacher_epochs: passes with which the teacher is trained; null means ``trainer.max_epochs``; 0 trains nothing.
        temperature: T of both softmaxes, above 0.
        alpha: weight of the teacher's term, in [0, 1].

    Raises:
        RequestError: an argument is out of range.
    """

    def __init__(
        self,
        teacher: str | Mapping[str, Any] | None = None,
        teacher_epochs: int | None = None,
        temperature: float = 4.0,
        alpha: float = 0.7,
    ) -> None:
        problems = []
        if temperature <= 0:
            problems.append(f"temperature: got {temperature}, expected a value above 0")
        if not 0 <= alpha <= 1:
            problems.append(f"alpha: got {alpha}, expected a weight in [0, 1]")
        if teacher_epochs is not None and teacher_epochs < 0:
            problems.append(f"teacher_epochs: got {teacher_epochs}, expected 0 or more")
        if problems:
            raise RequestError(problems)
        self.teacher = teacher
        self.teacher_epochs = teacher_epochs
        self.temperature = temperature
        self.alpha = alpha
        self._model: nn.Module | None = None

    def prepare(self, run: Run, fit: Fit) -> None:
        """Builds the teacher, and trains it unless it comes trained."""
        trained = isinstance(self.teacher, str) and not self.teacher.isidentifier()
        spec = self.teacher if self.teacher is not None else run.settings.extra["model"]
        teacher = run.fork(model=run.build.model(spec, run.data), parts=[])
        epochs = 0 if trained and self.teacher_epochs is None else self.teacher_epochs
        if epochs != 0:
            history = fit(teacher, epochs, name="teacher", share=True)
            run.report.note(f"distillation: teacher trained, best epoch {history.best_epoch}")
        self._model = teacher.model.eval().requires_grad_(False)

    def loss(self, run: Run, batch: Batch, output: Output) -> dict[str, Tensor]:
        """The weighted task loss and the teacher's term."""
        assert self._model is not None, "prepare was not called"
        with torch.no_grad():
            answers = self._model(batch.x)
        terms = {"distillation": self.alpha * run.task.soft_loss(output.logits, answers, self.temperature)}
        labelled = batch.rows(Role.LABELLED)
        if batch.y is not None and labelled.any():
            terms["task"] = (1 - self.alpha) * run.task.loss(output.logits[labelled], batch.y[labelled])
        return terms
