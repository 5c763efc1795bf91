"""``optimizer.lr=auto`` and ``trainer.batch_size=auto``: found once before the first fit that needs them, and kept."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field, replace
from statistics import median
from typing import TYPE_CHECKING, Any

import torch

from bigopt.train.job import Job
from bigopt.vocabulary.errors import RequestError
from bigopt.vocabulary.run import Run

if TYPE_CHECKING:
    from bigopt.train.signals import Signals

LOW, HIGH, STEPS = 1e-6, 1.0, 100
"""The range test's first and last rate, and its optimizer steps."""

SMOOTHING, DIVERGED = 0.98, 4.0
"""Share of the past in the loss's moving average; the test ends where that exceeds so many times its least."""

SKIPPED, LAST_SKIPPED = 10, 1
"""Steps at both ends among which no rate is suggested."""

FLAT = 1e-6
"""Share of the loss at the start by which it has to fall in a step, so that rounding is not taken for a fall."""

SMALLEST, LARGEST, LEAST_STEPS = 16, 4096, 16
"""Batch sizes that are tried; an epoch keeps so many steps."""

ENOUGH, TIMED, MEMORY = 0.9, 5, 0.8
"""Share of the best throughput that is enough, steps that are timed, and the share of free memory that may be used."""


@dataclass(frozen=True)
class Found:
    """What was found; what the configuration gives as a number is None.

    Attributes:
        lr: learning rate.
        batch_size: rows of one step.
        curve: ``lr``, ``loss`` and ``smoothed`` loss of every step of the range test.
        sizes: ``batch_size`` and ``rows_per_second`` of every size that was tried.
    """

    lr: float | None = None
    batch_size: int | None = None
    curve: list[dict[str, float]] = field(default_factory=list)
    sizes: list[dict[str, float]] = field(default_factory=list)

    def content(self) -> dict[str, Any]:
        """As plain values."""
        return asdict(self)

    def tables(self) -> dict[str, list[dict[str, Any]]]:
        """For the report, by their names."""
        curve = [{**point, "suggested": point["lr"] == self.lr} for point in self.curve]
        tables = {"lr_finder": curve, "batch_size_finder": [dict(row) for row in self.sizes]}
        return {name: rows for name, rows in tables.items() if rows}

    def notes(self) -> list[str]:
        """For the report, one line each."""
        lines = []
        if self.batch_size is not None:
            lines.append(
                f"trainer.batch_size=auto: {self.batch_size}, the smallest with {ENOUGH:.0%} of the best throughput"
            )
        if self.lr is not None:
            lines.append(f"optimizer.lr=auto: {self.lr:.3g}, where the loss fell most steeply in the range test")
        return lines


def settled(run: Run, found: Found) -> None:
    """Puts what was found into the run's settings, where all later fits and Parts find numbers."""
    settings = run.settings
    if found.batch_size is not None:
        settings = replace(settings, trainer=replace(settings.trainer, batch_size=found.batch_size))
    if found.lr is not None:
        settings = replace(settings, optimizer=replace(settings.optimizer, lr=found.lr))
    run.settings = settings


def find(job: Job, *, lr: bool, batch_size: bool, curve: Callable[[Job], Sequence[tuple[float, float]]]) -> Found:
    """Looks for what is asked for; the model and everything else is as it was afterwards.

    Args:
        job: the fit that needs it.
        lr: whether the learning rate is asked for.
        batch_size: whether the batch size is.
        curve: runs the range test: rate and loss of every step.

    Raises:
        RequestError: nothing could be found.
    """
    found = Found()
    if batch_size:
        rows = throughputs(job)
        found = replace(found, batch_size=enough(rows), sizes=rows)
        job = sized(job, enough(rows))
    if lr:
        points = smoothed(curve(job))
        found = replace(found, lr=steepest(points), curve=points)
    return found


def smoothed(curve: Sequence[tuple[float, float]]) -> list[dict[str, float]]:
    """The curve with its loss's moving average, corrected for its start at 0, up to where it diverged."""
    average, least, points = 0.0, math.inf, []
    for number, (lr, loss) in enumerate(curve, 1):
        average = SMOOTHING * average + (1 - SMOOTHING) * loss
        value = average / (1 - SMOOTHING**number)
        if not math.isfinite(value) or value > DIVERGED * least:
            break
        least = min(least, value)
        points.append({"lr": lr, "loss": loss, "smoothed": value})
    return points


def steepest(points: Sequence[dict[str, float]]) -> float:
    """The rate at which the smoothed loss falls most steeply over the rate's logarithm.

    Smith 2017 (arXiv:1506.01186), section 3.3, read off automatically.

    Raises:
        RequestError: it falls nowhere.
    """
    losses = [point["smoothed"] for point in points]
    inner = range(SKIPPED, len(losses) - LAST_SKIPPED)
    slopes = {number: (losses[number + 1] - losses[number - 1]) / 2 for number in inner}
    best = min(slopes, key=lambda number: slopes[number], default=None)
    if best is None or slopes[best] > -FLAT * abs(losses[0]):
        raise RequestError(
            f"optimizer.lr: auto found no rate from {LOW:g} to {HIGH:g} at which the loss falls; give a number"
        )
    return points[best]["lr"]


def rate(step: int) -> float:
    """The range test's rate at a step: from :data:`LOW` to :data:`HIGH` in equal factors."""
    return float(LOW * (HIGH / LOW) ** (min(step, STEPS - 1) / (STEPS - 1)))


def enough(rows: Sequence[dict[str, float]]) -> int:
    """The smallest batch size whose throughput comes close to the best."""
    best = max(row["rows_per_second"] for row in rows)
    return int(min(row["batch_size"] for row in rows if row["rows_per_second"] >= ENOUGH * best))


def sizes(samples: int) -> list[int]:
    """Batch sizes to try for so many samples: powers of two that leave an epoch enough steps."""
    most = min(LARGEST, max(SMALLEST, samples // LEAST_STEPS))
    return [SMALLEST * 2**number for number in range(20) if SMALLEST * 2**number <= most]


def throughputs(
    job: Job,
    clock: Callable[[], float] = time.perf_counter,
    memory: Callable[[], tuple[float, float]] | None = None,
) -> list[dict[str, float]]:
    """Rows per second of training at each size, until twice the size would not fit in memory.

    Args:
        job: the fit.
        clock: seconds.
        memory: bytes in use and bytes free; None asks the device.

    Raises:
        RequestError: not even the smallest size fits.
    """
    from bigopt.train.plan import resolve_plan

    first = sized(job, SMALLEST)
    plan, _ = resolve_plan(replace(first, lr=LOW), compiling=False)
    ask = memory or (lambda: _memory(plan.accelerator))
    rows: list[dict[str, float]] = []
    for size in sizes(len(job.run.data.train)):
        used, free = ask()
        try:
            seconds = _seconds(replace(sized(job, size), lr=LOW), plan, clock)
        except (RuntimeError, MemoryError) as error:
            if isinstance(error, RuntimeError) and "memory" not in str(error):
                raise
            break
        rows.append({"batch_size": float(size), "rows_per_second": size / max(seconds, 1e-9)})
        if 2 * (ask()[0] - used) > MEMORY * free:
            break
    if not rows:
        raise RequestError(f"trainer.batch_size: auto: not even {SMALLEST} rows fit in memory")
    return rows


def sized(job: Job, size: int) -> Job:
    """The same fit with another batch size."""
    settings = replace(job.run.settings, trainer=replace(job.run.settings.trainer, batch_size=size))
    return replace(job, run=replace(job.run, settings=settings))


def _seconds(job: Job, plan: Any, clock: Callable[[], float]) -> float:
    """Median time of a training step on a copy of the model."""
    from bigopt.train.trial import Trial

    trial = Trial(job, plan)
    trial.step()
    times = []
    for _ in range(TIMED):
        start = clock()
        trial.step().item()
        times.append(clock() - start)
    return median(times)


def _memory(accelerator: str) -> tuple[float, float]:
    """Bytes that this process has used at most so far, and bytes that are free."""
    if accelerator == "cuda":
        free, _ = torch.cuda.mem_get_info()
        return float(torch.cuda.max_memory_allocated()), float(free)
    import resource

    import psutil

    return float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024), float(psutil.virtual_memory().available)


@contextmanager
def as_it_was(job: Job) -> Iterator[None]:
    """Puts weights, and what is trained, back afterwards."""
    from bigopt.train.record import restore, snapshot

    modules = [job.run.model, *job.modules.values()]
    trained = [(parameter, parameter.requires_grad) for module in modules for parameter in module.parameters()]
    modes = [(module, module.training) for root in modules for module in root.modules()]
    state = {"model": snapshot(job.run.model), "modules": {name: snapshot(m) for name, m in job.modules.items()}}
    try:
        yield
    finally:
        restore(state, job.run.model, job.modules)
        for parameter, wanted in trained:
            parameter.requires_grad_(wanted)
            parameter.grad = None
        for module, mode in modes:
            module.training = mode


def range_test(job: Job, signals: Signals | None = None) -> list[tuple[float, float]]:
    """Trains for :data:`STEPS` steps at growing rates, hooks of Parts included, and leaves everything as it was.

    Args:
        job: the fit; the rates take the place of its peak.
        signals: end it before.

    Returns:
        rate and loss of every step, up to the first that is not finite.
    """
    from bigopt.train import ddp
    from bigopt.train._range import Listening, RangeModule
    from bigopt.train._session import channels_last, on_device, stoppable
    from bigopt.train._trainer import build_trainer, quiet, torch_settings
    from bigopt.train.data import EpochLoader
    from bigopt.train.job import companions
    from bigopt.train.modes import start_training
    from bigopt.train.plan import resolve_plan
    from bigopt.train.seeds import seed_all
    from bigopt.train.signals import Signals as Handlers
    from bigopt.vocabulary.run import recording

    signals = signals if signals is not None else Handlers()
    job = replace(job, lr=1.0, epochs=math.ceil(STEPS / job.steps_per_epoch))
    with ExitStack() as stack:
        stack.enter_context(as_it_was(job))
        stack.enter_context(quiet())
        stack.enter_context(torch_settings(job))
        plan, _ = resolve_plan(job, compiling=False)
        seed_all(job.seed, ddp.rank())
        if plan.channels_last:
            stack.enter_context(channels_last(job))
        if plan.accelerator != "cpu":
            stack.enter_context(on_device(companions(job), torch.device(plan.accelerator, ddp.rank())))
        loader = EpochLoader(job)
        seen = stack.enter_context(recording(job.run.model, job.taps))
        module = RangeModule(job, plan, seen, loader, signals)
        callbacks = [Listening(signals), *(callback for part in job.parts for callback in part.callbacks(job.run))]
        trainer = build_trainer(job, plan, callbacks)
        start_training(module)
        with stoppable(signals):
            trainer.fit(module, train_dataloaders=loader)
        return module.points
