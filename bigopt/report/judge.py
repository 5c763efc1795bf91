"""How much worse a stage is than another, and how sure that is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from bigopt.report.interval import paired_interval
from bigopt.report.stage import Stage, value_of

if TYPE_CHECKING:
    from torch import Tensor

    from bigopt.vocabulary.objective import Monitor
    from bigopt.vocabulary.task import Task

Interval = tuple[float, float]


class Judge:
    """Compares stages by one monitor on the validation split.

    Args:
        task: how outputs are judged.
        monitor: the metric that drops are measured by.
        y: validation labels ``(N,)`` or targets ``(N, T)``.
        seed: the intervals follow from it.
    """

    def __init__(self, task: Task, monitor: Monitor, y: Tensor, seed: int) -> None:
        self.task = task
        self.objective = monitor
        self.monitor = monitor
        self.y = y
        self.seed = seed
        self.logits: dict[str, Tensor | None] = {}
        self._known: dict[tuple[Monitor, str, str], Interval | None] = {}

    def value(self, stage: Stage) -> float | None:
        """The stage's value of the monitor."""
        return value_of(asdict(stage), self.monitor.metric)

    def drop(self, reference: Stage, stage: Stage) -> float | None:
        """How much worse the stage is; None where one of the two has no value."""
        old, new = self.value(reference), self.value(stage)
        return None if old is None or new is None else self.monitor.drop(new, old)

    def interval(self, reference: Stage, stage: Stage) -> Interval | None:
        """Paired interval of the drop, computed once."""
        key = (self.monitor, reference.name, stage.name)
        if key not in self._known:
            a, b = self.logits.get(reference.name), self.logits.get(stage.name)
            self._known[key] = paired_interval(self.task, self.monitor, a, b, self.y, seed=self.seed)
        return self._known[key]

    def against_control(self, stages: Sequence[Stage], control: Stage) -> dict[str, Any]:
        """Drops against the better of baseline and control, which had the same extra training.

        Args:
            stages: all rows, the baseline first.
            control: one of them.

        Returns:
            ``{"name", "better", "drops": {step: {"drop", "interval"}}}``, where ``better`` names the reference.
        """
        drop = self.drop(stages[0], control)
        better = control if drop is not None and drop < 0 else stages[0]
        steps = [stage for stage in stages[1:] if stage is not control]
        return {
            "name": control.name,
            "better": better.name,
            "drops": {
                step.name: {"drop": self.drop(better, step), "interval": self.interval(better, step)} for step in steps
            },
        }

    def test(self, outputs: Mapping[str, Tensor | None], y: Tensor) -> dict[str, Any]:
        """The report's ``test`` section: metrics of each model, and the drop from ``baseline`` to ``final``.

        Args:
            outputs: outputs ``(N, K)`` on the test split by model; those that are None are left out.
            y: labels ``(N,)`` or targets of the test split.
        """
        known = {name: logits for name, logits in outputs.items() if logits is not None}
        section: dict[str, Any] = {
            name: {f"test/{key}": value for key, value in self.task.metrics(logits, y).items()}
            for name, logits in known.items()
        }
        chosen = self.monitor if self.monitor.metric.startswith("val/") else self.objective  # labels are there by now
        monitor = replace(chosen, metric=chosen.metric.replace("val/", "test/", 1))
        old, new = (section[name].get(monitor.metric) for name in ("baseline", "final"))
        section["drop"] = None if old is None or new is None else monitor.drop(new, old)
        section["drop_interval"] = paired_interval(
            self.task, monitor, known["baseline"], known["final"], y, seed=self.seed
        )
        return section
