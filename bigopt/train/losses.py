"""The terms of one batch's loss."""

from __future__ import annotations

from torch import Tensor

from bigopt.train.job import Job
from bigopt.vocabulary.batch import Batch, Output, Role
from bigopt.vocabulary.errors import RequestError


def loss_terms(job: Job, batch: Batch, output: Output) -> dict[str, Tensor]:
    """The task loss on labelled rows and the Parts' terms; equal names are summed, the last ``task`` replaces.

    Raises:
        RequestError: there is no term at all, or a Part calls one ``loss``, as the total is called.
    """
    extra: dict[str, Tensor] = {}
    replaced: Tensor | None = None
    for part in job.parts:
        for name, term in part.loss(job.run, batch, output).items():
            if name == "loss":
                raise RequestError(f"{type(part).__name__}: 'loss' is the total; name its terms otherwise")
            if name == "task":
                replaced = term
            else:
                extra[name] = extra[name] + term if name in extra else term
    task = replaced if replaced is not None else task_loss(job, batch, output.logits)
    terms = ({} if task is None else {"task": task}) | extra
    if not terms:
        raise RequestError(f"{job.name}: a batch without labelled rows, and no Part gives a loss for it")
    return terms


def task_loss(job: Job, batch: Batch, logits: Tensor) -> Tensor | None:
    """Task loss on the labelled rows; None where there are none."""
    if batch.y is None:
        return None
    if batch.role is None:
        return job.run.task.loss(logits, batch.y)
    rows = batch.rows(Role.LABELLED)
    return job.run.task.loss(logits[rows], batch.y[rows]) if bool(rows.any()) else None
