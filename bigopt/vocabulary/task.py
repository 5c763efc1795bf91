"""Loss and metrics of classification and regression."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from bigopt.vocabulary.batch import Batch, Role
from bigopt.vocabulary.data import Schema, TaskName


@dataclass(frozen=True)
class Task:
    """How a model's outputs are judged.

    Attributes:
        name: classification or regression.
        num_classes: classes ``K``, or regression targets ``T``.
        label_smoothing: share of the label spread over all classes in the training loss.
    """

    name: TaskName
    num_classes: int
    label_smoothing: float = 0.0

    @classmethod
    def of(cls, schema: Schema, label_smoothing: float = 0.0) -> Task:
        """The task that a dataset poses."""
        return cls(schema.task, schema.num_classes, label_smoothing)

    def loss(self, logits: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
        """Training loss: cross-entropy (hard ``(N,)`` or soft ``(N, K)`` labels) or squared error."""
        if self.name == "classification":
            return functional.cross_entropy(logits, y, label_smoothing=self.label_smoothing, reduction=reduction)
        return functional.mse_loss(logits, y.reshape(logits.shape), reduction=reduction)

    def soft_loss(self, student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
        """Distance to a teacher's answers (Hinton et al. 2015, arXiv:1503.02531).

        Args:
            student: logits ``(N, K)`` or predictions ``(N, T)``.
            teacher: the same for the teacher.
            temperature: T of both softmaxes.

        Returns:
            ``T² · KL(teacher_T ‖ student_T)``, mean over rows; for regression the squared distance.
        """
        if self.name == "regression":
            return functional.mse_loss(student, teacher)
        return temperature**2 * functional.kl_div(
            functional.log_softmax(student / temperature, dim=1),
            functional.log_softmax(teacher / temperature, dim=1),
            reduction="batchmean",
            log_target=True,
        )

    def taught(
        self, batch: Batch, logits: Tensor, answers: Tensor, *, alpha: float, temperature: float, name: str
    ) -> dict[str, Tensor]:
        """Terms of a loss that a teacher shares with the labels: ``alpha · soft_loss + (1 - alpha) · loss``.

        Args:
            batch: rows without a label learn from the teacher alone.
            logits: the model's ``(N, K)``.
            answers: the teacher's ``(N, K)``.
            alpha: weight of the teacher.
            temperature: T of both softmaxes.
            name: of the teacher's term.

        Returns:
            this term and, where rows are labelled, ``task``, which takes the task loss's place.
        """
        terms = {name: alpha * self.soft_loss(logits, answers, temperature)}
        labelled = batch.rows(Role.LABELLED)
        if batch.y is not None and labelled.any():
            terms["task"] = (1 - alpha) * self.loss(logits[labelled], batch.y[labelled])
        return terms

    def metrics(self, logits: Tensor, y: Tensor) -> dict[str, float]:
        """Metrics of a whole split, without a prefix.

        Args:
            logits: ``(N, K)`` or ``(N, T)``.
            y: labels ``(N,)`` or targets ``(N, T)``.

        Returns:
            classification: ``accuracy``, ``loss`` (nats), ``macro_f1``; regression: ``loss``/``mse``, ``rmse``,
            ``mae`` (target units), ``r2``.
        """
        logits = logits.detach().float().cpu()
        y = y.cpu()
        if self.name == "classification":
            return {
                "accuracy": (logits.argmax(1) == y).double().mean().item(),
                "loss": functional.cross_entropy(logits, y).item(),
                "macro_f1": self._macro_f1(logits.argmax(1), y),
            }
        y = y.reshape(logits.shape).float()
        error = logits - y
        mse = error.square().mean().item()
        spread = (y - y.mean(0)).square().mean().item()
        return {
            "loss": mse,
            "mse": mse,
            "rmse": mse**0.5,
            "mae": error.abs().mean().item(),
            "r2": 1.0 - mse / spread if spread > 0 else float("nan"),
        }

    def _macro_f1(self, predicted: Tensor, y: Tensor) -> float:
        """Unweighted mean of the F1 of every class that occurs in ``y`` or among the predictions."""
        counts = torch.bincount(y * self.num_classes + predicted, minlength=self.num_classes**2)
        confusion = counts.reshape(self.num_classes, self.num_classes).double()
        hit = confusion.diagonal()
        total = confusion.sum(0) + confusion.sum(1)
        present = total > 0
        return (2 * hit[present] / total[present]).mean().item()
