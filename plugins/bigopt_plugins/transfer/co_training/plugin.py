"""Co-training: two models learn from the same data and from each other; one of them ships."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from bigopt.vocabulary.batch import Batch, Output, Role
from bigopt.vocabulary.errors import RequestError
from bigopt.vocabulary.part import Fit, Part
from bigopt.vocabulary.run import Run
from bigopt.vocabulary.task import Task
from bigopt_plugins.transfer._layers import head_name, take_over
from bigopt_plugins.transfer._selection import Selection, keep_last, within_budget
from bigopt_plugins.transfer._source import class_names, resolve
from bigopt_plugins.transfer._statistics import refresh_statistics
from bigopt_plugins.transfer._unlabelled import Deck, joined, one_pass, unlabelled_of
from bigopt_plugins.transfer._views import Views, views_of
from bigopt_plugins.transfer.co_training._agreement import feature_agreement, output_agreement, taught
from bigopt_plugins.transfer.co_training._choice import Ship, compared, winner
from bigopt_plugins.transfer.co_training._pair import bridge_between, feature_tap, second_model, shared_spec


class CoTraining(Part):
    """Trains two models on the same data with agreement on outputs (Zhang et al. 2018, arXiv:1706.00384) and features.

    Where there are unlabelled samples (``dataset.labels_per_class``), each model also learns the other's confident
    answers (Blum and Mitchell 1998): answers come from a weak view, learning happens on a strong one, and each model
    sees views of its own. Without ``source`` the first stage is the co-training. With it, the two are co-trained on the
    source first, and the better one is then fine-tuned on the run's data. The table ``co_training`` holds both models
    and their ensemble, with what each costs.

    Args:
        partner: the second model: a plugin's name, or a mapping with ``name`` and arguments. Null means the first one's
            architecture with other initial weights.
        source: where to co-train: a dataset's name, or a mapping with ``dataset`` and, unless it is this run's,
            ``model``. Null means the run's own data.
        source_epochs: passes over the source; null means ``trainer.max_epochs``.
        outputs: weight of the agreement of outputs.
        features: weight of the agreement of features, through a linear map that is learnt.
        pseudo: weight of each other's confident answers on unlabelled rows.
        threshold: confidence from which an answer is a label, in [0, 1].
        ratio: unlabelled rows for each labelled one.
        views: whether each model sees random views of its own; false shows both the same rows (any kind of data).
        magnitude: of the strong view, in [0, 1].
        labelled: view of the labelled rows.
        ship: ``best`` on validation, or one of the two.
        selection: what chooses the epoch: the ``validation`` split (an oracle where labels are limited), a fifth of the
            ``budget`` of labels, or nothing: the ``last`` one.
        independent: also train the two without any agreement, for as long, and report their ensemble: what the same
            training and inference would have given.

    Raises:
        RequestError: an argument is out of range.
    """

    space: ClassVar[dict[str, str]] = {
        "outputs": "interval(0.0,1.0)",
        "features": "tag(log,interval(0.01,1.0))",
        "threshold": "interval(0.7,0.99)",
    }

    def __init__(
        self,
        partner: str | Mapping[str, Any] | None = None,
        source: str | Mapping[str, Any] | None = None,
        source_epochs: int | None = None,
        outputs: float = 0.5,
        features: float = 0.1,
        pseudo: float = 1.0,
        threshold: float = 0.95,
        ratio: int = 3,
        views: bool = True,
        magnitude: float = 0.5,
        labelled: Literal["weak", "strong"] = "weak",
        ship: Literal["best", "first", "second"] = "best",
        selection: Literal["validation", "last", "budget"] = "validation",
        independent: bool = False,
    ) -> None:
        problems = []
        for name, value in (("outputs", outputs), ("features", features), ("pseudo", pseudo)):
            if value < 0:
                problems.append(f"{name}: got {value}, expected 0 or more")
        for name, value in (("threshold", threshold), ("magnitude", magnitude)):
            if not 0 <= value <= 1:
                problems.append(f"{name}: got {value}, expected a value in [0, 1]")
        if ratio < 1:
            problems.append(f"ratio: got {ratio}, expected at least 1")
        if source_epochs is not None and source_epochs < 1:
            problems.append(f"source_epochs: got {source_epochs}, expected at least 1")
        if labelled not in ("weak", "strong"):
            problems.append(f"labelled: got {labelled!r}, expected weak or strong")
        if ship not in ("best", "first", "second"):
            problems.append(f"ship: got {ship!r}, expected best, first or second")
        if selection not in ("validation", "last", "budget"):
            problems.append(f"selection: got {selection!r}, expected validation, last or budget")
        if problems:
            raise RequestError([f"transfer.{problem}" for problem in problems])
        self.partner = partner
        self.source = source
        self.source_epochs = source_epochs
        self.outputs = outputs
        self.features = features
        self.pseudo = pseudo
        self.threshold = threshold
        self.ratio = ratio
        self.views = views
        self.magnitude = magnitude
        self.labelled = labelled
        self.ship: Ship = ship
        self.selection: Selection = selection
        self.independent = independent
        self._views: Views | None = None
        self._second: nn.Module | None = None
        self._held: dict[str, Any] = {}
        self._rows: list[dict[str, Any]] = []
        self._oracle = False

    def prepare(self, run: Run, fit: Fit) -> None:
        """Builds the second model; co-trains on the source where there is one, and takes the better one's weights."""
        if self.source is None:
            self._begin(run)
            if self.independent:
                self._independent(run, fit)
            return
        source = resolve(run, fit, self.source, trained=False)
        fork = run.fork(model=source.model, parts=[self])
        fork.data, fork.task, fork.report = source.data, Task.of(source.data.schema), run.report
        fork.settings = replace(run.settings, extra=_described(run, source.data.name, self.source))
        self._begin(fork)
        if self.independent:
            self._independent(fork, fit)
        fit(fork, self.source_epochs, name="co_training", share=True)
        run.history += fork.history
        second = self._end(fork) == "second"
        if second and not shared_spec(fork, self.partner):
            self._become(run, run.build.model(_spec(self.partner), run.data))
        same = source.classes == class_names(run.data)
        copied, new = take_over(run.model, fork.model, None if same else head_name(run.model))
        run.report.note(f"co_training: took over {copied} tensors; new: {', '.join(new) or 'none'}")

    def modules(self, run: Run) -> dict[str, nn.Module]:
        """The second model, the map between features, and the order of the unlabelled rows."""
        if self._second is None:
            return {}
        self._held = {"second": self._second}
        if self.features:
            self._held["bridge"] = bridge_between(run, self._second)
        if run.data.unlabelled is not None:
            self._held["deck"] = Deck(len(run.data.unlabelled))
        return dict(self._held)

    def taps(self, run: Run) -> Sequence[str]:
        """The first model's last features."""
        return [feature_tap(run.model)] if self._second is not None and self.features else []

    def batch(self, run: Run, batch: Batch) -> Batch:
        """Each model's own views (the second's is ``second``), unlabelled rows last; ``weak`` is for their answers."""
        if self._second is None:
            return batch
        weak, strong = (self._views.weak, self._views.strong) if self._views is not None else (_same, _same)
        known = weak if self.labelled == "weak" else strong
        second = known(batch.x)
        if "deck" not in self._held:
            return batch.with_(x=known(batch.x), views={**batch.views, "second": second})
        assert run.data.unlabelled is not None
        index = self._held["deck"].draw(self.ratio * len(batch.x))
        raw = run.data.unlabelled.take(index).to(batch.x.device)
        first = known(batch.x)
        views = {"second": torch.cat([second, strong(raw)]), "weak": torch.cat([first, weak(raw)])}
        return joined(batch.with_(x=first), strong(raw), index, views)

    def loss(self, run: Run, batch: Batch, output: Output) -> dict[str, Tensor]:
        """The second model's task loss, the agreements, and each other's confident answers."""
        if self._second is None:
            return {}
        tap = feature_tap(self._second) if self.features else None
        other = run.forward(batch.views["second"], [tap] if tap else [], self._second)
        logits = other.logits.float()
        terms: dict[str, Tensor] = {}
        labelled, unlabelled = batch.rows(Role.LABELLED), batch.rows(Role.UNLABELLED)
        if batch.y is not None and bool(labelled.any()):
            terms["second_task"] = run.task.loss(logits[labelled], batch.y[labelled])
        if self.outputs:
            terms["output_agreement"] = self.outputs * output_agreement(run.task, output.logits, logits)
        if tap:
            features = output.taps[feature_tap(run.model)], other.taps[tap]
            terms["feature_agreement"] = self.features * feature_agreement(*features, self._held["bridge"])
        if self.pseudo and bool(unlabelled.any()):
            with torch.no_grad():
                weak = batch.views["weak"][unlabelled]
                first_says, second_says = run.model(weak), self._second(weak)
            first, second = output.logits[unlabelled], logits[unlabelled]
            both = taught(first, second_says, self.threshold) + taught(second, first_says, self.threshold)
            terms["pseudo_labels"] = self.pseudo * both
        return terms

    def callbacks(self, run: Run) -> list[Any]:
        """Where no label chooses, the last epoch is kept."""
        return [keep_last(run)] if self.selection == "last" and self._second is not None else []

    def finish(self, run: Run, fit: Fit) -> None:
        """Decides which model ships; the other one is let go."""
        if self._second is not None:
            self._end(run)

    def _begin(self, run: Run) -> None:
        """Builds what co-training on this run's data needs."""
        limited = run.data.unlabelled is not None or _labels_limited(run)
        self._oracle = limited and self.selection != "budget"
        self._views = views_of(run.data, self.magnitude) if self.views else None
        if limited and (self.pseudo or self.outputs or self.features):
            unlabelled = unlabelled_of(run, "co_training")
            data = within_budget(run, self.selection, "co_training")
            data = replace(data, unlabelled=unlabelled)
            run.data = one_pass(data, self.ratio, run.settings.trainer.rows)
        elif self.selection == "budget":
            run.data = within_budget(run, self.selection, "co_training")
        self._second = second_model(run, self.partner, run.data)

    def _end(self, run: Run) -> str:
        """Reports both models and their ensemble, and leaves the one that ships in the run."""
        assert self._second is not None
        second, self._second, self._held = self._second, None, {}
        if run.data.unlabelled is not None and self.views:
            for model in (run.model, second):
                refresh_statistics(model, run.data.unlabelled)
        rows = compared(run, {"first": run.model, "second": second})
        ships = winner(run, rows, self.ship)
        for row in rows:
            row["ships"] = row["model"] == ships
        run.report.table("co_training", rows + self._rows)
        run.report.value("ships", ships)
        metric = run.monitor.metric if run.monitor.metric in rows[0] else "val/loss"
        alone, together = next(row for row in rows if row["ships"]), rows[2]
        chosen = f"by validation{', an oracle beyond the label budget' if self._oracle else ''}"
        run.report.note(
            f"co_training: the {ships} model ships ({chosen if self.ship == 'best' else 'as asked'}): {metric} "
            f"{alone[metric]:.4f} with {alone['macs']:,} MACs; the ensemble of both would give {together[metric]:.4f} "
            f"with {together['macs']:,} MACs, after the same training"
        )
        if ships == "second" and shared_spec(run, self.partner):
            run.model.load_state_dict(second.state_dict())
        elif ships == "second":
            self._become(run, second)
        return ships

    def _become(self, run: Run, model: nn.Module) -> None:
        """Makes a model of the partner's architecture the run's own."""
        run.model = model
        run.settings = replace(run.settings, extra={**run.settings.extra, "model": _spec(self.partner)})

    def _independent(self, run: Run, fit: Fit) -> None:
        """Trains the two without agreement for as many epochs; their ensemble goes into the table."""
        how = {name: getattr(self, name) for name in ("views", "magnitude", "labelled", "selection")}
        alone = CoTraining(self.partner, outputs=0, features=0, pseudo=0, **how)  # type: ignore[arg-type]
        fork = run.fork(parts=[alone])
        fork.data = replace(run.data, unlabelled=None)
        alone._views, alone._second = self._views, second_model(fork, self.partner, fork.data)
        fit(fork, self.source_epochs, name="independent", share=True)
        run.history += fork.history
        rows = compared(fork, {"first": fork.model, "second": alone._second})
        self._rows = [{**row, "model": f"independent {row['model']}", "ships": False} for row in rows]


def _same(x: Tensor) -> Tensor:
    return x


def _spec(partner: str | Mapping[str, Any] | None) -> dict[str, Any]:
    assert partner is not None
    return {"name": partner} if isinstance(partner, str) else dict(partner)


def _labels_limited(run: Run) -> bool:
    spec = run.settings.extra.get("dataset")
    return isinstance(spec, Mapping) and spec.get("labels_per_class") is not None


def _described(run: Run, name: str, source: str | Mapping[str, Any]) -> dict[str, Any]:
    """What the settings say of model and dataset, for the source."""
    mapping = source if isinstance(source, Mapping) else {"dataset": source}
    dataset = mapping.get("dataset", name)
    dataset = {"name": dataset} if isinstance(dataset, str) else dict(dataset)
    model = mapping.get("model") or run.settings.extra["model"]
    return {"model": {"name": model} if isinstance(model, str) else dict(model), "dataset": dataset}
