"""The ledger of a run: a row for every stage, written after each, so that a kill loses nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from bigopt.report.budget import judge_budget
from bigopt.report.csv import stages_to_csv
from bigopt.report.format import drop_text
from bigopt.report.interval import resolvable
from bigopt.report.judge import Judge
from bigopt.report.notebook import Notebook
from bigopt.report.stage import Stage, exported, plain, row_of
from bigopt.vocabulary.objective import parse_objective

if TYPE_CHECKING:
    from torch import Tensor

    from bigopt.vocabulary.data import Data
    from bigopt.vocabulary.objective import Monitor
    from bigopt.vocabulary.settings import Settings
    from bigopt.vocabulary.task import Task

Status = Literal["running", "finished", "failed", "interrupted", "pruned"]
SCHEMA = 1


class Ledger(Notebook):
    """Rows of a run and the report made of them; also the :class:`~bigopt.vocabulary.run.Reporter` of its Parts.

    Notes, facts and tables that Parts leave go to the row that is added next; what is left over goes to the run.

    Args:
        folder: the run's folder.
        settings: gives the objective and the budget.
        data: gives validation labels, notes, fingerprint and the count of test reads.
        task: how outputs are judged.
        seed: the run's seed; the intervals follow from it too.
        environment: versions and hardware (see :func:`bigopt.report.environment`).
        config: resolved configuration, kept with its secrets masked.
        writes: False on ranks other than the first.

    Attributes:
        stages: rows so far, the baseline first.
        status: ``running`` until :meth:`finish`.
        notes: lines about the run as a whole.
    """

    def __init__(
        self,
        folder: Path,
        *,
        settings: Settings,
        data: Data,
        task: Task,
        seed: int = 0,
        environment: Mapping[str, Any] | None = None,
        config: Mapping[str, Any] | None = None,
        writes: bool = True,
    ) -> None:
        super().__init__(folder, writes)
        self.settings = settings
        self.data = data
        self.environment = dict(environment or {})
        self.config = dict(config or {})
        self.stages: list[Stage] = []
        self.status: Status = "running"
        self.error: str | None = None
        self.notes: list[str] = []
        self._judge = Judge(task, parse_objective(settings.objective)[0], data.val.y, seed)
        self._control: Stage | None = None
        self._onnx: dict[str, Any] | None = None
        self._test: dict[str, Any] | None = None

    @property
    def monitor(self) -> Monitor:
        """What drops are measured by: the first objective, unless set (a Part may bring a label-free one)."""
        return self._judge.monitor

    @monitor.setter
    def monitor(self, monitor: Monitor) -> None:
        if monitor != self._judge.monitor:
            self.notes.append(f"drops are measured by {monitor.metric} ({monitor.mode})")
        self._judge.monitor = monitor

    def follow(self, data: Data) -> None:
        """Judges by this data from now on: a Part may have put other training and validation splits in place."""
        if data is not self.data:
            self.data = data
            self._judge.y = data.val.y

    def add(
        self,
        name: str,
        plugin: str | None,
        measure: Any,
        *,
        recovery_epochs: int,
        seconds: float,
        control: bool = False,
        history: Sequence[Any] = (),
        notes: Sequence[str] = (),
    ) -> Stage:
        """Adds a row and writes the report. The first row is the baseline.

        Args:
            name: the stage's name.
            plugin: the plugin behind it, None for the baseline and the control.
            measure: what was measured on its file, like ``bigopt.measure.StageMeasure``.
            recovery_epochs: epochs trained after the step.
            seconds: wall time without measuring.
            control: whether this is the uncompressed baseline given the same extra training.
            history: :class:`~bigopt.vocabulary.run.History` (or mappings like it) of the stage's fits.
            notes: lines for the reader, beside those that Parts left.

        Raises:
            ValueError: there is a row of this name already, or the control comes first.
            OSError: the report could not be written.
        """
        if name in self._judge.logits:
            raise ValueError(f"stage {name!r} is in the ledger already")
        if control and not self.stages:
            raise ValueError("the first row is the baseline, not the control")
        left_notes, left_values = self.take(name)
        stage = row_of(name, plugin, measure, recovery_epochs=recovery_epochs, seconds=seconds, history=history)
        stage.notes = list(dict.fromkeys([*left_notes, *notes]))
        stage.values = left_values | stage.values
        self._judge.logits[name] = measure.logits
        self.stages.append(stage)
        self._compare(stage)
        if control:
            self._control = stage
        else:
            self._onnx = exported(measure, self.folder)
        self.write()
        return stage

    def _compare(self, stage: Stage) -> None:
        """Fills in the drop and its interval, and says so where validation cannot tell the drop from none."""
        baseline = self.stages[0]
        stage.drop = self._judge.drop(baseline, stage)
        stage.drop_interval = self._judge.interval(baseline, stage)
        if stage is baseline:
            return
        stage.values["resolvable"] = seen = resolvable(stage.drop_interval)
        if seen is False:
            metric, n = self.monitor.metric, len(self.data.val)
            drop = drop_text(metric, stage.drop, stage.drop_interval)
            stage.notes.append(f"{metric}: {n} validation samples cannot tell the drop ({drop}) from none")

    def test(self, baseline: Tensor, final: Tensor, y: Tensor, control: Tensor | None = None) -> dict[str, Any]:
        """Judges the finished candidate on the test split, once, and keeps the result.

        Args:
            baseline: outputs of the baseline's file ``(N, K)``.
            final: outputs of the final file, same shape.
            y: labels ``(N,)`` or targets of the test split.
            control: outputs of the control, where there is one.

        Returns:
            The report's ``test`` section.
        """
        self._test = self._judge.test({"baseline": baseline, "final": final, "control": control}, y)
        self.write()
        return self._test

    def finish(self, status: Status, error: str | None = None, *, html: bool = True) -> dict[str, Any]:
        """Closes the ledger and writes everything.

        Args:
            status: how the run ended.
            error: one line that says why, unless it finished.
            html: whether the page and its plots are drawn (a sweep's trials do without).

        Returns:
            The report.

        Raises:
            OSError: something could not be written.
        """
        self.status, self.error = status, error
        self.notes += [note for note in self.take(None)[0] if note not in self.notes]
        self.write()
        if html and self.writes:
            from bigopt.report.html import draw_or_note

            self.notes += draw_or_note(self.report(), self.folder)
            self.write()
        return self.report()

    def final(self) -> Stage | None:
        """The last step's row (the baseline without steps); the control is no step."""
        rows = [stage for stage in self.stages if stage is not self._control]
        return rows[-1] if rows else None

    def report(self) -> dict[str, Any]:
        """The report as report.json holds it: plain values, secrets masked."""
        from bigopt.store import redact

        final, data = self.final(), self.data
        judged = asdict(final) if final is not None and self.status == "finished" else None
        report = {
            "schema": SCHEMA,
            "status": self.status,
            "error": self.error,
            "seed": self._judge.seed,
            "environment": self.environment,
            "objective": dict(self.settings.objective),
            "drop_metric": self.monitor.metric,
            "drop_mode": self.monitor.mode,
            "n_val": len(data.val),
            "stages": [asdict(stage) for stage in self.stages],
            "control": self._control and self._judge.against_control(self.stages, self._control),
            "test": self._test and {**self._test, "test_reads": data.test_reads},
            "onnx": self._onnx and {**self._onnx, **self._shipped()},
            "budget": judge_budget(self.settings.budget, judged),
            "notes": self.notes,
            "data": {"name": data.name, "fingerprint": data.fingerprint, "notes": list(data.notes)},
            "tables": self.tables,
            "config": self.config,
        }
        clean: dict[str, Any] = plain(redact(plain(report)))
        return clean

    def _shipped(self) -> dict[str, str]:
        """The final file's place in the run folder, once it lies there."""
        return {"path": "model.onnx"} if (self.folder / "model.onnx").exists() else {}

    def write(self) -> None:
        """Writes report.json and report.csv.

        Raises:
            OSError: one of them could not be written; the old one is intact.
        """
        if not self.writes:
            return
        from bigopt.store import write_atomic, write_json

        report = self.report()
        self.folder.mkdir(parents=True, exist_ok=True)
        write_json(self.folder / "report.json", report)
        write_atomic(self.folder / "report.csv", stages_to_csv(report["stages"]))
