"""Semi-supervised learning from few labelled and many unlabelled samples of one dataset."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from bigopt.vocabulary.batch import Batch, Output, Role
from bigopt.vocabulary.errors import RequestError
from bigopt.vocabulary.part import Fit, Part
from bigopt.vocabulary.run import Run
from bigopt_plugins.transfer._selection import Selection, keep_last, within_budget
from bigopt_plugins.transfer._statistics import refresh_statistics
from bigopt_plugins.transfer._unlabelled import Deck, joined, one_pass, unlabelled_of
from bigopt_plugins.transfer._views import Views, views_of
from bigopt_plugins.transfer.semi_supervised._fixmatch import FixMatch
from bigopt_plugins.transfer.semi_supervised._flexmatch import FlexMatch
from bigopt_plugins.transfer.semi_supervised._freematch import FreeMatch
from bigopt_plugins.transfer.semi_supervised._mean_teacher import Average, MeanTeacher
from bigopt_plugins.transfer.semi_supervised._method import Method
from bigopt_plugins.transfer.semi_supervised._pseudo_label import PseudoLabel
from bigopt_plugins.transfer.semi_supervised._softmatch import SoftMatch

METHODS: dict[str, type[Method]] = {
    "pseudo_label": PseudoLabel,
    "mean_teacher": MeanTeacher,
    "fixmatch": FixMatch,
    "flexmatch": FlexMatch,
    "freematch": FreeMatch,
    "softmatch": SoftMatch,
}


class SemiSupervised(Part):
    """Trains on labelled and unlabelled rows at once; each batch's labelled rows are joined by ``ratio`` times as many.

    The label budget is ``dataset.labels_per_class``, drawn by ``dataset.seed``; samples beyond it lose their label. One
    epoch passes the unlabelled samples once, repeating the labelled ones. Methods
    keep working while later compression steps recover. An augmentation recipe would change the views again.

    Args:
        method: pseudo-label (Lee 2013), Mean Teacher (Tarvainen and Valpola 2017), FixMatch (Sohn et al. 2020),
            FlexMatch (Zhang et al. 2021), FreeMatch (Wang et al. 2023) or SoftMatch (Chen et al. 2023).
        ratio: unlabelled rows for each labelled one (μ); the papers take 7.
        weight: of the unlabelled rows' main term; null means the paper's (3 for pseudo-label, 100 for Mean Teacher, 1).
        threshold: confidence above which an answer is a label (FixMatch, FlexMatch, pseudo-label; null means the
            paper's: 0.95, and 0 for pseudo-label), in [0, 1].
        momentum: of FreeMatch's and SoftMatch's moving averages, in [0, 1); the papers' 0.999 suits a million steps.
        fairness: weight of FreeMatch's fairness term.
        teacher_decay: of Mean Teacher's average, in [0, 1).
        ramp: share of a fit over which the weight rises (pseudo-label, Mean Teacher), in [0, 1].
        magnitude: of the strong view, in [0, 1].
        labelled: view of the labelled rows; the papers take the weak one, few labels may want the strong one.
        selection: ``last`` keeps the last epoch, so that no label beyond the budget is read; ``budget`` validates on a
            fifth of the labels; ``oracle`` validates on the labels of the validation split, beyond the budget.

    Raises:
        RequestError: an argument is out of range.
    """

    space: ClassVar[dict[str, str]] = {"ratio": "choice(1,3,7)", "ramp": "interval(0.0,0.6)"}

    def __init__(
        self,
        method: Literal["pseudo_label", "mean_teacher", "fixmatch", "flexmatch", "freematch", "softmatch"] = "fixmatch",
        ratio: int = 3,
        weight: float | None = None,
        threshold: float | None = None,
        momentum: float = 0.99,
        fairness: float = 0.01,
        teacher_decay: float = 0.99,
        ramp: float = 0.3,
        magnitude: float = 0.5,
        labelled: Literal["weak", "strong"] = "weak",
        selection: Literal["last", "budget", "oracle"] = "last",
    ) -> None:
        problems = []
        if method not in METHODS:
            problems.append(f"method: got {method!r}, expected one of {', '.join(METHODS)}")
        if ratio < 1:
            problems.append(f"ratio: got {ratio}, expected at least 1")
        for name, value in (("weight", weight), ("fairness", fairness)):
            if value is not None and value < 0:
                problems.append(f"{name}: got {value}, expected 0 or more")
        for name, value in (("threshold", threshold), ("ramp", ramp), ("magnitude", magnitude)):
            if value is not None and not 0 <= value <= 1:
                problems.append(f"{name}: got {value}, expected a value in [0, 1]")
        for name, value in (("momentum", momentum), ("teacher_decay", teacher_decay)):
            if not 0 <= value < 1:
                problems.append(f"{name}: got {value}, expected a value in [0, 1)")
        if labelled not in ("weak", "strong"):
            problems.append(f"labelled: got {labelled!r}, expected weak or strong")
        if selection not in ("last", "budget", "oracle"):
            problems.append(f"selection: got {selection!r}, expected last, budget or oracle")
        if problems:
            raise RequestError([f"transfer.{problem}" for problem in problems])
        self.method = method
        self.ratio = ratio
        self.weight = weight
        self.threshold = threshold
        self.momentum = momentum
        self.fairness = fairness
        self.teacher_decay = teacher_decay
        self.ramp = ramp
        self.magnitude = magnitude
        self.labelled = labelled
        self.selection: Selection = selection
        self._views: Views | None = None
        self._state: dict[str, Any] = {}

    def prepare(self, run: Run, fit: Fit) -> None:
        """Gathers the unlabelled samples, settles which labels validate, and makes an epoch pass the former once."""
        unlabelled = unlabelled_of(run, "semi_supervised")
        self._views = views_of(run.data, self.magnitude)
        data = replace(within_budget(run, self.selection, f"semi_supervised.{self.method}"), unlabelled=unlabelled)
        run.data = one_pass(data, self.ratio, run.settings.trainer.rows)

    def modules(self, run: Run) -> dict[str, nn.Module]:
        """The method's state, the unlabelled samples' order, and Mean Teacher's teacher; new for every fit."""
        assert run.data.unlabelled is not None
        rows = len(run.data.unlabelled)
        held: dict[str, nn.Module] = {"deck": Deck(rows), "method": self._method(rows, run.task.num_classes)}
        if METHODS[self.method].teacher == "average":
            held["average"] = Average(run.model, self.teacher_decay)
        self._state = held
        return held

    def batch(self, run: Run, batch: Batch) -> Batch:
        """Labelled rows, then unlabelled ones in the student's view; ``weak`` among the views is the teacher's."""
        assert self._views is not None and run.data.unlabelled is not None
        kind = METHODS[self.method]
        index = self._state["deck"].draw(self.ratio * len(batch.x))
        raw = run.data.unlabelled.take(index).to(batch.x.device)
        rows, both = len(batch.x), torch.cat([batch.x, raw])
        weak = self._views.weak(both)
        if kind.student == "strong":
            student, views = self._views.strong(raw), {"weak": weak}
        else:
            student = weak[rows:]
            views = {} if kind.teacher == "self" else {"weak": self._views.weak(both)}
        labelled = weak[:rows] if self.labelled == "weak" else self._views.strong(batch.x)
        return joined(batch.with_(x=labelled), student, index, views)

    def loss(self, run: Run, batch: Batch, output: Output) -> dict[str, Tensor]:
        """The method's terms on its rows."""
        kind = METHODS[self.method]
        rows = torch.ones_like(batch.rows(Role.LABELLED)) if kind.everyone else batch.rows(Role.UNLABELLED)
        if not bool(rows.any()):
            return {}
        logits = output.logits[rows]
        with torch.no_grad():
            if kind.teacher == "self":
                answers = logits.detach()
            else:
                teacher = self._state["average"] if kind.teacher == "average" else run.model
                answers = teacher(batch.views["weak"][rows]).float()
        terms: dict[str, Tensor] = self._state["method"](answers, logits, batch.index[rows])
        return terms

    def callbacks(self, run: Run) -> list[Any]:
        """Progress and teacher; and where no label chooses, the last epoch is kept."""
        from bigopt_plugins.transfer.semi_supervised._callbacks import Following

        following = Following(self._state["method"], self._state.get("average"))
        return [following, *([keep_last(run)] if self.selection == "last" else [])]

    def finish(self, run: Run, fit: Fit) -> None:
        """Batch norm gets the statistics of samples as they are, in place of strong views'; a teacher ships.

        Where labels validate, Mean Teacher's student ships if it is strictly better than the teacher there.
        """
        average = self._state.get("average")
        if METHODS[self.method].student == "strong" and run.data.unlabelled is not None:
            refresh_statistics(run.model, run.data.unlabelled)
        if average is None:
            return
        student = run.model.state_dict()
        if self.selection != "last" and not self._teacher_wins(run, average.model):
            run.report.value("ships", "student")
            return
        with torch.no_grad():
            for name, value in average.model.state_dict().items():
                student[name].copy_(value)
        run.report.value("ships", "teacher")

    def _teacher_wins(self, run: Run, teacher: nn.Module) -> bool:
        from bigopt.train import evaluate

        metric = run.monitor.metric.removeprefix("val/")
        student, other = (evaluate(each, run.data.val)[metric] for each in (run, run.fork(model=teacher)))
        return not run.monitor.better(student, other)

    def _method(self, rows: int, classes: int) -> Method:
        """A fresh method with the configuration's arguments, or the paper's where it leaves them open."""
        weight = METHODS[self.method].paper_weight if self.weight is None else self.weight
        lenient = self.method == "pseudo_label"
        threshold = (0.0 if lenient else 0.95) if self.threshold is None else self.threshold
        if self.method == "pseudo_label":
            return PseudoLabel(weight, threshold, self.ramp)
        if self.method == "mean_teacher":
            return MeanTeacher(weight, self.ramp)
        if self.method == "fixmatch":
            return FixMatch(weight, threshold)
        if self.method == "flexmatch":
            return FlexMatch(weight, threshold, rows, classes)
        if self.method == "freematch":
            return FreeMatch(weight, self.fairness, self.momentum, classes)
        return SoftMatch(weight, self.momentum, classes)
