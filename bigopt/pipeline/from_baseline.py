"""Distillation from the dense baseline, an option of every step's recovery."""

from __future__ import annotations

from torch import Tensor

from bigopt.vocabulary.answers import answer
from bigopt.vocabulary.batch import Batch, Output
from bigopt.vocabulary.part import Part
from bigopt.vocabulary.run import Run
from bigopt.vocabulary.settings import Recover


class FromBaseline(Part):
    """Distils from the dense baseline while a step recovers (``recover.teacher: baseline``)."""

    def __init__(self, recover: Recover) -> None:
        self.temperature = recover.temperature
        self.alpha = recover.alpha

    def loss(self, run: Run, batch: Batch, output: Output) -> dict[str, Tensor]:
        """``(1 - alpha) · task + alpha · T² · KL(baseline ‖ model)``; takes the place of the task loss."""
        teacher = run.baseline
        assert teacher is not None
        answers = run.answers.get(batch, lambda x: {"logits": answer(teacher, x)})["logits"]
        return run.task.taught(
            batch, output.logits, answers, alpha=self.alpha, temperature=self.temperature, name="baseline_teacher"
        )
