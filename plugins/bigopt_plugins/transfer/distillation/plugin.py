"""Knowledge distillation: a teacher's answers, features, attention and relations train the student."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from bigopt.vocabulary.answers import Answers
from bigopt.vocabulary.batch import Batch, Output
from bigopt.vocabulary.errors import RequestError
from bigopt.vocabulary.part import Fit, Part
from bigopt.vocabulary.run import INPUT, Run
from bigopt_plugins.transfer.distillation._ask import ask
from bigopt_plugins.transfer.distillation._logits import by_validation, mixture
from bigopt_plugins.transfer.distillation._stage import HintStage
from bigopt_plugins.transfer.distillation._teachers import Teacher, gather
from bigopt_plugins.transfer.distillation._terms import Terms, Weights, terms_for


class Distillation(Part):
    """Trains the model on what a teacher says and sees, beside the labels; the teacher may be larger or smaller.

    The loss is ``(1 - alpha) · CE + alpha · T² · KL(teacher_T ‖ student_T)`` (Hinton et al. 2015, arXiv:1503.02531),
    for regression with the squared distance to the teacher's prediction in the KL's place; the terms below are added.
    What teachers say is computed once where no Part changes the batches, or where ``augment.copies`` fixes how.
    Teachers stay active while compression steps recover, and only the student is exported.

    Args:
        teacher: a model plugin's name or a mapping with ``name`` and arguments (trained here unless it has
            ``weights``); a run folder, a folder of transformers, an ONNX file, ``runs:/…`` or ``models:/…``; or a list
            of these. Null trains one of the student's own architecture (born-again, Furlanello et al. 2018,
            arXiv:1805.04770).
        teacher_epochs: passes with which teachers are trained; null means ``trainer.max_epochs`` for those that come
            untrained; 0 trains none.
        temperature: T of both softmaxes, above 0.
        alpha: weight of the teacher's answers, in [0, 1].
        teacher_lr: peak learning rate of teachers that are trained; null means ``optimizer.lr``.
        teacher_recipe: whether the run's recipe (augmentation, norm, …) acts while teachers are trained.
        weighting: of several teachers: ``equal``, or ``validation`` for the mixture that suits validation best.
        hints: weight of hints: a layer foretells the teacher's through a regressor (Romero et al. 2015,
            arXiv:1412.6550); by default half-way through the nets.
        hint_epochs: passes on hints alone before everything else, FitNets' first stage.
        attention: β of attention transfer, ``β/2`` times the squared distance of unit maps (Zagoruyko and Komodakis
            2017, arXiv:1612.03928); by default at the end of each resolution.
        distance: weight of the distances between samples' embeddings (RKD, Park et al. 2019, arXiv:1904.05068).
        angle: weight of the angles between samples' embeddings (RKD).
        student_layers: name patterns of layers for hints and attention; the k-th belongs to the teacher's k-th.
        teacher_layers: name patterns of the teachers' layers.
        cache: ``auto`` keeps what teachers say of samples that come again as they were; ``off`` asks every time.

    Raises:
        RequestError: an argument is out of range.
    """

    space: ClassVar[dict[str, str]] = {"temperature": "tag(log,interval(1.0,10.0))", "alpha": "interval(0.3,1.0)"}

    def __init__(
        self,
        teacher: str | Mapping[str, Any] | list[Any] | None = None,
        teacher_epochs: int | None = None,
        temperature: float = 2.0,
        alpha: float = 0.7,
        teacher_lr: float | None = None,
        teacher_recipe: bool = True,
        weighting: Literal["equal", "validation"] = "equal",
        hints: float = 0.0,
        hint_epochs: int = 0,
        attention: float = 0.0,
        distance: float = 0.0,
        angle: float = 0.0,
        student_layers: tuple[str, ...] = (),
        teacher_layers: tuple[str, ...] = (),
        cache: Literal["auto", "off"] = "auto",
    ) -> None:
        problems = []
        if temperature <= 0:
            problems.append(f"temperature: got {temperature}, expected a value above 0")
        if not 0 <= alpha <= 1:
            problems.append(f"alpha: got {alpha}, expected a weight in [0, 1]")
        if teacher_epochs is not None and teacher_epochs < 0:
            problems.append(f"teacher_epochs: got {teacher_epochs}, expected 0 or more")
        if teacher_lr is not None and teacher_lr <= 0:
            problems.append(f"teacher_lr: got {teacher_lr}, expected a rate above 0")
        for name, value in (("hints", hints), ("attention", attention), ("distance", distance), ("angle", angle)):
            if value < 0:
                problems.append(f"{name}: got {value}, expected a weight of 0 or more")
        if hint_epochs < 0:
            problems.append(f"hint_epochs: got {hint_epochs}, expected 0 or more")
        for name, word, choices in (
            ("weighting", weighting, ("equal", "validation")),
            ("cache", cache, ("auto", "off")),
        ):
            if word not in choices:
                problems.append(f"{name}: got {word!r}, expected {' or '.join(choices)}")
        if isinstance(teacher, Sequence) and not isinstance(teacher, str) and not teacher:
            problems.append("teacher: got an empty list, expected at least one")
        if problems:
            raise RequestError([f"transfer.{problem}" for problem in problems])
        self.teacher = teacher
        self.teacher_epochs = teacher_epochs
        self.temperature = temperature
        self.alpha = alpha
        self.teacher_lr = teacher_lr
        self.teacher_recipe = teacher_recipe
        self.weighting = weighting
        self.hints = hints
        self.hint_epochs = hint_epochs
        self.attention = attention
        self.distance = distance
        self.angle = angle
        self.student_layers = tuple(student_layers)
        self.teacher_layers = tuple(teacher_layers)
        self.cache = cache
        self._weights = Weights(hints, attention, distance, angle)
        self._shares: list[float] = []
        self._terms: list[Terms] = []
        self._state: dict[str, Any] = {"regressors": {}, "answers": Answers()}
        self._models: nn.Module | None = None  # held as a module: moved with the fit, and part of its key

    def prepare(self, run: Run, fit: Fit) -> None:
        """Gathers the teachers, trains those that come untrained, and chooses the layers that are compared."""
        specs = list(self.teacher) if isinstance(self.teacher, list | tuple) else [self.teacher]
        parts = [part for part in run.parts if part is not self] if self.teacher_recipe else []
        wanted = Weights(self.hints or float(self.hint_epochs > 0), self.attention, self.distance, self.angle)
        teachers = gather(run, fit, specs, self.teacher_epochs, self.teacher_lr, parts, wanted.layers)
        self._models = nn.ModuleList(teacher.model for teacher in teachers).eval()
        self._shares = self._weigh(run, teachers)
        rows = [teacher.row(run.monitor.metric, share) for teacher, share in zip(teachers, self._shares, strict=True)]
        run.report.table("teachers", rows)
        x = run.data.train.take(torch.arange(min(2, len(run.data.train))))
        self._terms = self._layers(run, teachers, x, self._weights)
        if self.hint_epochs:
            stage = HintStage(run, self._models, self._layers(run, teachers, x, Weights(hints=1.0)), self._shares)
            fit(run, self.hint_epochs, name="hints", parts=[stage])
        if self._terms and self._weights.layers:
            run.report.note("distillation compares " + "; ".join(dict.fromkeys(_lines(self._terms))))

    def modules(self, run: Run) -> dict[str, nn.Module]:
        """A regressor for each hint, in the student's present shape; new for every fit."""
        x = run.data.train.take(torch.arange(min(2, len(run.data.train))))
        made = {name: module for terms in self._alive(run) for name, module in terms.regressors(run.model, x).items()}
        self._state["regressors"] = made
        return made

    def taps(self, run: Run) -> Sequence[str]:
        """The student's layers that are compared."""
        return list(dict.fromkeys(name for terms in self._alive(run) for name in terms.asked()))

    def loss(self, run: Run, batch: Batch, output: Output) -> dict[str, Tensor]:
        """The weighted task loss, the term of the teachers' answers, and those of their layers."""
        assert self._models is not None, "prepare was not called"
        kept: Answers = self._state["answers"]
        auto = self.cache == "auto"
        targets = kept.get(batch, lambda x: self._targets(run, x)) if auto else self._targets(run, batch.x)
        terms = run.task.taught(
            batch, output.logits, targets["logits"], alpha=self.alpha, temperature=self.temperature, name="distillation"
        )
        for one in self._alive(run):
            share = self._shares[one.number]
            for name, term in one.loss(self._weights, output.taps, targets, self._state["regressors"]).items():
                terms[name] = terms[name] + share * term if name in terms else share * term
        return terms

    def _targets(self, run: Run, x: Tensor) -> dict[str, Tensor]:
        """The teachers' common answer, and what their layers give, for raw inputs."""
        models: Any = self._models
        answers, targets = ask(models, self._terms, x)
        return {"logits": mixture(answers, self._shares, self.temperature, run.task.name), **targets}

    def _weigh(self, run: Run, teachers: list[Teacher]) -> list[float]:
        if self.weighting == "equal" or len(teachers) == 1:
            return [1 / len(teachers)] * len(teachers)
        return by_validation([teacher.answers for teacher in teachers], run.data.val.y, run.task.name)

    def _layers(self, run: Run, teachers: list[Teacher], x: Tensor, weights: Weights) -> list[Terms]:
        if not weights.layers:
            return []
        return [
            terms_for(run.model, teacher.model, number, x, weights, self.student_layers, self.teacher_layers)
            for number, teacher in enumerate(teachers)
        ]

    def _alive(self, run: Run) -> list[Terms]:
        """The terms whose layers the student still has: a converted graph has none."""
        names = {name for name, _ in run.model.named_modules()}
        missing = {n for terms in self._terms for n in terms.asked() if n.removesuffix(INPUT) not in names}
        return [terms.without(missing) for terms in self._terms] if missing else self._terms


def _lines(terms: Sequence[Terms]) -> list[str]:
    """Pairs of layers, readable."""
    pairs = [f"{p.student} with {p.teacher}" for one in terms for p in (*one.hints, *one.attention)]
    return pairs + [f"{one.embedding[0]} with {one.embedding[1]}" for one in terms if one.embedding]
