"""The one driver of compression steps: schedule, recovery and the largest allowed drop, for all methods."""

from __future__ import annotations

import copy
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from bigopt.pipeline.cells import Cells, cells_key, save_picture
from bigopt.pipeline.from_baseline import FromBaseline
from bigopt.pipeline.notes import Collected
from bigopt.vocabulary.data import Split
from bigopt.vocabulary.errors import RequestError, RunFailed
from bigopt.vocabulary.part import Fit, Part, further_metrics
from bigopt.vocabulary.run import History, Run
from bigopt.vocabulary.settings import StepOptions


@dataclass
class Outcome:
    """What one compression step did.

    Attributes:
        epochs: epochs that the final model went through in this step.
        seconds: wall time of the step.
        history: the fits of the step.
        strength: the strength that was applied; None for methods without one.
    """

    epochs: int = 0
    seconds: float = 0.0
    history: list[History] = field(default_factory=list)
    strength: float | None = None


def recovery_epochs(run: Run, part: Part, options: StepOptions) -> int:
    """Epochs that a step will train for."""
    return options.recover.epochs if options.recover.epochs is not None else part.epochs(run)


def recovery_lr(run: Run, part: Part, options: StepOptions) -> float:
    """Peak learning rate with which a step will train."""
    share = options.recover.lr if options.recover.lr is not None else part.recovery_lr(run)
    return share * run.settings.optimizer.rate


def step_epochs(run: Run, part: Part, options: StepOptions) -> int:
    """All epochs that a step trains for, what its preparation trains included; the control is given as many."""
    return recovery_epochs(run, part, options) + part.extra_epochs(run)


def recovery_parts(run: Run, part: Part | None, options: StepOptions) -> list[Part]:
    """Whose hooks act while a step recovers: the run's own, the step's, and the dense teacher where asked for."""
    parts = list(run.parts) + ([part] if part is not None else [])
    return parts + ([FromBaseline(options.recover)] if options.recover.teacher == "baseline" else [])


def compress(run: Run, name: str, part: Part, options: StepOptions, fit: Fit) -> Outcome:
    """Takes one compression step on ``run.model``, as its options say.

    Raises:
        RequestError: the model is frozen and the step needs to change it.
    """
    if part.needs == "trainable" and _frozen(run.model):
        raise RequestError(
            f"compression.{name} needs a trainable model, but an earlier step exported or converted it; put it before"
        )
    start = time.perf_counter()
    run.options = options
    seen = len(run.history)
    try:
        if options.sensitivity or part.needs_scan():
            _scan(run, name, part)
        outcome = _within_drop(run, name, part, fit) if options.max_drop is not None else _step(run, name, part, fit)
    finally:
        run.options = StepOptions()
    outcome.history = outcome.history or run.history[seen:]
    outcome.seconds = time.perf_counter() - start
    return outcome


def _step(run: Run, name: str, part: Part, fit: Fit, strength: float | None = None) -> Outcome:
    """Prepare, compress, recover, finish."""
    options = run.options
    epochs = recovery_epochs(run, part, options)
    strength = part.strength() if strength is None else strength
    lr = recovery_lr(run, part, options)
    parts = recovery_parts(run, part, options)
    part.prepare(run, fit)
    if strength is None:
        fit(run, epochs, lr=lr, name=name, parts=parts)
    else:
        for number, (share, length) in enumerate(_rounds(strength, epochs, options)):
            part.apply(run, share)
            _agree(run, name)
            fit(run, length, lr=lr, name=name if number == 0 else f"{name}-{number + 1}", parts=parts)
    part.finish(run, fit)
    _agree(run, name)
    return Outcome(epochs=epochs + part.extra_epochs(run), strength=strength)


def _agree(run: Run, name: str) -> None:
    """Gives every rank the first one's weights, once it is sure that all decided the same.

    Raises:
        RunFailed: a rank removed something else.
    """
    from bigopt.train.ddp import broadcast_object, broadcast_state, gather

    changes = getattr(run.model, "changes", [])
    if not all(gather(changes == broadcast_object(changes))):
        raise RunFailed(f"compression.{name}: the ranks decided differently what to remove")
    broadcast_state(run.model)


def _rounds(strength: float, epochs: int, options: StepOptions) -> list[tuple[float, int]]:
    """Shares of what is left to take away, each with the epochs that follow; together they reach the strength."""
    schedule = options.schedule
    if schedule.name == "one_shot" or schedule.rounds == 1:
        return [(strength, epochs)]
    count = schedule.rounds
    if schedule.name == "iterative":
        reached = [strength * (i + 1) / count for i in range(count)]
    else:
        # Zhu and Gupta 2017 (arXiv:1710.01878), eq. 1, from zero sparsity.
        reached = [strength * (1 - (1 - (i + 1) / count) ** 3) for i in range(count)]
    lengths = [epochs // count + (1 if i >= count - epochs % count else 0) for i in range(count)]
    before = [0.0, *reached[:-1]]
    return [(1 - (1 - now) / (1 - then), length) for then, now, length in zip(before, reached, lengths, strict=True)]


def _within_drop(run: Run, name: str, part: Part, fit: Fit) -> Outcome:
    """The largest strength whose drop on validation, after recovery, stays within ``max_drop``; found by bisection."""
    limit = run.options.max_drop
    assert limit is not None
    reference = score(run, run.baseline if run.baseline is not None else run.model)
    resolution = 1 / len(run.data.val)
    if limit < resolution and run.task.name == "classification":
        run.report.note(
            f"{name}: max_drop {limit} is below what {len(run.data.val)} validation samples can resolve "
            f"({resolution:.2g})"
        )
    candidates: Sequence[float | None] = sorted(part.strengths) if part.strength() is not None else [None]
    if part.strength() is not None and not candidates:
        candidates = [part.strength()]
    tried: list[dict[str, float | None]] = []
    best: tuple[Run, Outcome, Collected] | None = None
    low, high = 0, len(candidates) - 1
    while low <= high:
        middle = (low + high) // 2
        trial = run.fork()
        trial.report = notes = Collected()
        outcome = _step(trial, name, part, fit, candidates[middle])
        drop = run.monitor.drop(score(trial, trial.model), reference)
        tried.append({"strength": candidates[middle], "drop": drop})
        if drop <= limit:
            best = (trial, replace(outcome, history=trial.history), notes)
            low = middle + 1
        else:
            high = middle - 1
    run.report.table(f"max_drop_{name}", tried)
    if best is None:
        closest = min((row["drop"] for row in tried if row["drop"] is not None), default=float("nan"))
        run.report.note(
            f"{name}: no strength keeps the drop within {limit}; the closest came to {closest:.4g}; the model was left"
        )
        return Outcome()
    trial, outcome, notes = best
    notes.replay(run.report)
    run.model, run.parts = trial.model, trial.parts
    run.history.extend(trial.history)
    return outcome


def sensitivity(
    run: Run, part: Part, strengths: Sequence[float] | None = None, cells: Cells | None = None
) -> list[dict[str, float | str]]:
    """Objective after compressing one layer at a time, without training.

    Args:
        run: what is compressed; its model is left as it is.
        part: the method.
        strengths: to try; None means the method's own.
        cells: values that are known already, and where new ones are kept; None for nowhere.

    Returns:
        one row per layer and strength: ``layer``, ``strength``, ``value`` of the objective, ``drop``.
    """
    rows: list[dict[str, float | str]] = []
    layers = part.layers(run)
    chosen = list(strengths if strengths is not None else part.strengths)
    run.progress.start("sensitivity", len(layers) * len(chosen))
    try:
        reference = _cell(run, part, "", 0.0, cells)
        for layer in layers:
            for strength in chosen:
                value = _cell(run, part, layer, strength, cells)
                drop = run.monitor.drop(value, reference)
                rows.append({"layer": layer, "strength": strength, "value": value, "drop": drop})
                run.progress.advance()
    finally:
        run.progress.stop()
    return rows


def _cell(run: Run, part: Part, layer: str, strength: float, cells: Cells | None) -> float:
    """The objective with one layer compressed (with none at strength 0), from the cells where they have it."""
    known = cells.get(layer, strength) if cells is not None else None
    if known is not None:
        return known
    trial = run.fork() if strength else run
    if strength:
        part.apply(trial, strength, only=layer)
    value = score(trial, trial.model)
    if cells is not None:
        cells.put(layer, strength, value)
    return value


def _scan(run: Run, name: str, part: Part) -> None:
    """The scan of a step: its table, its picture, and what the method makes of it."""
    from bigopt.train.ddp import broadcast_object, rank

    if not part.strengths or not part.layers(run):
        run.report.note(f"{name}: nothing to scan: {type(part).__name__} has no strength that a layer could be given")
        return
    cells = Cells(run.folder / "sensitivity" / f"{name}.json", cells_key(run, part), writes=rank() == 0)
    known = len(cells)
    rows = broadcast_object(sensitivity(run, part, cells=cells))
    run.report.table(f"sensitivity_{name}", rows)
    run.report.value("sensitivity", {"cells": len(rows), "known_before": max(0, known - 1)})
    if rank() == 0:
        save_picture(run.folder / "plots" / f"sensitivity_{name}.png", rows, run.monitor.metric)
    part.scanned(run, rows)


def score(run: Run, model: nn.Module) -> float:
    """The monitored metric of a model in memory, on validation."""
    from bigopt.train import evaluate, predict

    metrics = evaluate(run.fork(model=model) if model is not run.model else run, run.data.val)
    trainer = run.settings.trainer

    def outputs(split: Split) -> Tensor:
        return predict(model, split, trainer.eval_batch_size, workers=trainer.workers)

    values = {f"val/{name}": value for name, value in metrics.items()}
    return (values | further_metrics(run, run.parts, model, outputs))[run.monitor.metric]


def frozen_copy(model: nn.Module) -> nn.Module:
    """A copy in evaluation mode that nothing trains."""
    return copy.deepcopy(model).eval().requires_grad_(False)


def _frozen(model: nn.Module) -> bool:
    return isinstance(model, torch.fx.GraphModule)
