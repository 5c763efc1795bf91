"""Learning rate as a share of its peak, in closed form, for every optimizer step of a fit."""

from __future__ import annotations

import math
from dataclasses import dataclass

from bigopt.vocabulary.objective import Monitor
from bigopt.vocabulary.settings import Scheduler

ONE_CYCLE_START = 1 / 25
ONE_CYCLE_END = 1 / 25e4
ONE_CYCLE_RISE = 0.3


def factor(settings: Scheduler, step: int, total: int, per_epoch: int) -> float:
    """Share of the peak rate at an optimizer step.

    Args:
        settings: shape and its parameters.
        step: optimizer steps already taken, in ``[0, total)``.
        total: optimizer steps of the whole fit.
        per_epoch: optimizer steps of one epoch.
    """
    if settings.name == "one_cycle":
        return _one_cycle(step, total, settings.warmup or ONE_CYCLE_RISE)
    warmup = round(settings.warmup * total)
    if step < warmup:
        return (step + 1) / (warmup + 1)
    progress = (step - warmup) / max(1, total - warmup)
    return _decay(settings, progress, (step - warmup) / per_epoch, step // per_epoch)


def _decay(settings: Scheduler, progress: float, since: float, epoch: int) -> float:
    """Decay after the warm-up: ``progress`` in [0, 1), epochs ``since`` its end, whole epochs of the fit."""
    final = settings.final
    match settings.name:
        case "cosine":
            return final + (1 - final) * (1 + math.cos(math.pi * progress)) / 2
        case "linear":
            return float(final + (1 - final) * (1 - progress))
        case "polynomial":
            return float(final + (1 - final) * (1 - progress) ** settings.power)
        case "exponential":
            return float(settings.gamma**since)
        case "multiplicative":
            return float(settings.gamma**epoch)
        case "step":
            return float(settings.gamma ** (epoch // settings.step_epochs))
        case _:
            return 1.0


def _one_cycle(step: int, total: int, rise: float) -> float:
    """Smith and Topin (2018) with cosine slopes: up to the peak, then far below the start."""
    top = rise * total - 1
    if step <= top:
        return _between(ONE_CYCLE_START, 1.0, step / top if top > 0 else 1.0)
    return _between(1.0, ONE_CYCLE_END, (step - top) / max(1e-12, total - 1 - top))


def _between(start: float, end: float, share: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * share)) / 2


@dataclass
class Plateau:
    """Cuts the rate by a factor after more than ``patience`` epochs without improvement.

    Attributes:
        factor: share of the rate that is left.
        best: best monitored value so far, None before the first.
        bad: epochs since then, or since the last cut.
    """

    factor: float = 1.0
    best: float | None = None
    bad: int = 0

    def update(self, settings: Scheduler, monitor: Monitor, value: float) -> None:
        """Takes one epoch's monitored value."""
        if self.best is None or monitor.better(value, self.best):
            self.best, self.bad = value, 0
            return
        self.bad += 1
        if self.bad > settings.patience:
            self.factor, self.bad = self.factor * settings.gamma, 0
