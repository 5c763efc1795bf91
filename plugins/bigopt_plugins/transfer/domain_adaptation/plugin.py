"""Domain adaptation: labels come from a source, the model is for a target without labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from bigopt.data import generator
from bigopt.train import predict
from bigopt.vocabulary.batch import Batch, Output, Role
from bigopt.vocabulary.data import Data
from bigopt.vocabulary.errors import RequestError
from bigopt.vocabulary.network import Network
from bigopt.vocabulary.objective import Monitor
from bigopt.vocabulary.part import Fit, Part
from bigopt.vocabulary.run import INPUT, Run
from bigopt_plugins.transfer._layers import head_name
from bigopt_plugins.transfer._source import class_names, resolve
from bigopt_plugins.transfer.domain_adaptation import _adabn, _bbse, _domains, _judging, _shot
from bigopt_plugins.transfer.domain_adaptation._cdan import ConditionalDiscriminator, cdan
from bigopt_plugins.transfer.domain_adaptation._dan import dan
from bigopt_plugins.transfer.domain_adaptation._dann import Discriminator, dann, ramp
from bigopt_plugins.transfer.domain_adaptation._deep_coral import deep_coral
from bigopt_plugins.transfer.domain_adaptation._fitting import fitting, normalise, take_over
from bigopt_plugins.transfer.domain_adaptation._mcc import mcc
from bigopt_plugins.transfer.domain_adaptation._sampling import Balanced, drawn_anew
from bigopt_plugins.transfer.domain_adaptation._snd import soft_neighbourhood_density
from bigopt_plugins.transfer.domain_adaptation._step import Step

if TYPE_CHECKING:
    from bigopt.vocabulary.part import Predict

WEIGHTS = {"dann": 1.0, "cdan": 1.0, "dan": 1.0, "deep_coral": 50.0, "mcc": 1.0, "shot": 1.0}
STATISTICS = {"dan": dan, "deep_coral": deep_coral, "mcc": mcc}
ADVERSARIES = {"dann": dann, "cdan": cdan}
MONITORS = {
    "source": Monitor("val/accuracy", "max"),
    "information": Monitor("target/information", "max"),
    "snd": Monitor("target/snd", "max"),
    "dev": Monitor("target/dev", "min"),
}
AGREEMENT = Monitor("target/agreement", "max")


class DomainAdaptation(Part):
    """Trains on a labelled source and adapts to the target's inputs; the target's labels are never read.

    The run's dataset is the target; ``val/…`` is measured on the source's validation split. Epochs of the first stage
    are chosen by ``selection``. Afterwards drops, ``max_drop`` and the epochs of recoveries go by
    ``target/agreement``: the share of held-out target inputs that get the baseline's class. What is lost in target
    accuracy is at most 1 minus that. The method acts in recoveries too.

    Methods: ``source_only``; ``dann`` (Ganin et al. 2016), ``cdan`` (Long et al. 2018), ``dan`` (Long et al. 2015),
    ``deep_coral`` (Sun and Saenko 2016), ``adabn`` (Li et al. 2016, arXiv:1603.04779), ``mcc`` (Jin et al. 2020),
    ``shot`` (Liang et al. 2020; source rows are not used once the source model is trained).

    Args:
        method: how to adapt.
        source: a dataset's name; a run folder; or a mapping with ``dataset``, ``model`` and ``imbalance`` (above 1: the
            source is made long-tailed, its first class so many times as frequent as its last).
        source_epochs: passes over the source alone before; null means ``trainer.max_epochs`` where the method
            starts from a source model (``shot``, ``label_shift=bbse``), else 0.
        weight: of the method's terms; null takes the method's own. All but those of ``shot`` grow over a fit as the
            reversal's strength does (Ganin et al. 2016, section 5.2.2), since features that tell no classes apart yet
            must not be aligned.
        sampling: ``balanced`` draws every source class as often.
        label_shift: ``bbse`` weighs source classes by their frequency in the target, as black-box shift
            estimation finds it (Lipton et al. 2018).
        selection: what chooses epochs in the first stage: accuracy on ``source`` validation; ``information``, what the
            answers on the target say about its inputs (Shi and Sha 2012, arXiv:1206.6438: certain alone, diverse
            together); soft neighbourhood density (``snd``, Saito et al. 2021), which prefers nets that have hardly
            learnt yet and is for comparing finished ones; deep embedded validation (``dev``, You et al. 2019).
        target_labels: train on the target's own training labels too; null does so where ``dataset.labels_per_class``
            leaves few.
        label_map: source class name by target class name, where the two differ.
        oracle: also show ``oracle/accuracy``, which reads the target's validation labels; nothing is selected by it.

    Raises:
        RequestError: an argument is out of range.
    """

    space: ClassVar[dict[str, str]] = {"method": "choice(dann,cdan,dan,deep_coral,mcc)"}

    def __init__(
        self,
        method: Literal["source_only", "dann", "cdan", "dan", "deep_coral", "adabn", "mcc", "shot"] = "mcc",
        source: str | Mapping[str, Any] | None = None,
        source_epochs: int | None = None,
        weight: float | None = None,
        sampling: Literal["natural", "balanced"] = "natural",
        label_shift: Literal["none", "bbse"] = "none",
        selection: Literal["source", "information", "snd", "dev"] = "information",
        target_labels: bool | None = None,
        label_map: Mapping[str, str] | None = None,
        oracle: bool = False,
    ) -> None:
        problems = []
        if method not in ("source_only", "adabn", *WEIGHTS):
            problems.append(f"method: got {method!r}, expected one of source_only, adabn, {', '.join(WEIGHTS)}")
        if source_epochs is not None and source_epochs < 0:
            problems.append(f"source_epochs: got {source_epochs}, expected 0 or more")
        if weight is not None and not weight >= 0:
            problems.append(f"weight: got {weight}, expected 0 or more")
        if selection not in MONITORS:
            problems.append(f"selection: got {selection!r}, expected one of {', '.join(MONITORS)}")
        if problems:
            raise RequestError(problems)
        self.method = method
        self.source = source
        self.source_epochs = source_epochs
        self.weight = weight
        self.sampling = sampling
        self.label_shift = label_shift
        self.selection = selection
        self.target_labels = target_labels
        self.label_map = label_map
        self.oracle = oracle
        self._target: _domains.Target | None = None
        self._truth: Data | None = None
        self._head = ""
        self._balance: _domains.Balance | None = None
        self._class_weights: Tensor | None = None
        self._discriminator: nn.Module | None = None
        self._progress = 1.0
        self._rows: Tensor | None = None
        self._pseudo: Tensor | None = None
        self._reference: tuple[nn.Module, Tensor] | None = None

    def prepare(self, run: Run, fit: Fit) -> None:
        """Puts the source's labelled data in place of the target's, trains a source model where one is needed."""
        target = run.data
        if run.task.name != "classification":
            raise RequestError("transfer.domain_adaptation: needs classes, and the dataset is a regression set")
        self._head = head_name(run.model)
        if self.method == "adabn" and not _adabn.batch_norms(run.model):
            raise RequestError("transfer.method: adabn needs a model with batch norm, and this one has none")
        spec, imbalance = _domains.split_spec(self.source)
        found = resolve(run, fit, spec, epochs=self.source_epochs, trained=False)
        data = fitting(found.data, target, self.label_map)
        if imbalance > 1:
            data = _domains.long_tailed(data, imbalance, run.seed)
        labelled = self._uses_labels(run, target)
        self._target = _domains.target_of(target, labelled)
        self._truth = target if self.oracle else None
        run.data = _domains.together(data, target, self._target, self.method)
        self._balance = _domains.Balance(data.train.y) if self.sampling == "balanced" else None
        run.monitor = MONITORS[self.selection]
        if found.folder is not None:
            if found.classes != class_names(data):
                raise RequestError(
                    f"transfer.source: the model in {found.folder} has its classes in another order than "
                    f"{target.name}: {', '.join(found.classes)}; name its dataset as the source instead"
                )
            take_over(run.model, found.model, found.folder)
        elif not run.settings.extra.get("model", {}).get("weights"):
            normalise(run.model, run.data)
        self._train_source(run, fit, found.folder is not None)
        if self.method == "shot":
            run.model.get_submodule(self._head).requires_grad_(False)

    def _uses_labels(self, run: Run, target: Data) -> bool:
        few = run.settings.extra.get("dataset", {}).get("labels_per_class")
        if self.target_labels is not None:
            return self.target_labels
        if few:
            run.report.note(f"domain_adaptation: the target's {len(target.train)} labels are trained on too")
        return bool(few)

    def _train_source(self, run: Run, fit: Fit, trained: bool) -> None:
        """Trains on the source alone where that is wanted, and asks the result for the shift of the classes."""
        needed = self.method == "shot" or self.label_shift == "bbse"
        epochs = self.source_epochs
        if epochs is None:
            epochs = run.settings.trainer.max_epochs if needed and not trained else 0
        alone = run.fork(parts=[])
        alone.baseline, alone.monitor = None, MONITORS["source"]
        if epochs:
            if self.method == "shot":
                alone.task = replace(run.task, label_smoothing=max(run.task.label_smoothing, _shot.SMOOTHING))
            fit(alone, epochs, name="source", parts=[Balanced(self._balance)], share=True)
            run.history += alone.history
            run.model.load_state_dict(alone.model.state_dict())
        if self.label_shift == "bbse":
            self._class_weights = self._estimate(run, alone.model)

    def _estimate(self, run: Run, model: nn.Module) -> Tensor:
        """Weight of every class in the source's loss."""
        assert self._target is not None
        size, val = run.settings.trainer.eval_batch_size, run.data.val
        classes = run.data.schema.num_classes
        joint = _bbse.confusion(predict(model, val, size).argmax(1), val.y, classes)
        seen = predict(model, self._target.pool, size).argmax(1).bincount(minlength=classes)
        weights = _bbse.label_weights(joint, seen / len(self._target.pool))
        names = class_names(run.data)
        run.report.value("label_shift", {name: round(w, 4) for name, w in zip(names, weights.tolist(), strict=True)})
        if self._balance is not None:  # rows come as if every class were as frequent
            share = run.data.train.y.bincount(minlength=classes).double() / len(run.data.train)
            weights = weights * share * int((share > 0).sum())
        return weights.float()

    def modules(self, run: Run) -> dict[str, nn.Module]:
        """The discriminator, made anew where the features' width has changed."""
        if self.method not in ADVERSARIES or not isinstance(run.model, Network):
            return {}
        width = _judging.embed(run.model, self._head, run.data.train, rows=2)[0].shape[1]
        if self._discriminator is None or self._discriminator.inputs != width:
            seed = generator(run.seed, "discriminator", width).initial_seed()
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)
                classes = run.data.schema.num_classes
                conditional = self.method == "cdan"
                self._discriminator = (
                    ConditionalDiscriminator(width, classes, seed=seed) if conditional else Discriminator(width)
                )
        return {"discriminator": self._discriminator}

    def taps(self, run: Run) -> Sequence[str]:
        """What enters the head; exported graphs show nothing of it, and are trained without terms that need it."""
        return [self._head + INPUT] if isinstance(run.model, Network) else []

    def batch(self, run: Run, batch: Batch) -> Batch:
        """Source rows, then labelled target rows where there are some, then as many target rows without labels.

        Methods without a term see no target rows, so that batch norm does not see them either.
        """
        known = self._target
        assert known is not None, "prepare was not called"
        count, device = len(batch.x), batch.x.device
        if self._balance is not None:
            batch = drawn_anew(run.data.train, self._balance, batch)
        x: list[Tensor] = []
        y: list[Tensor] = []
        index: list[Tensor] = []
        role: list[Tensor] = []
        if self.method != "shot":
            assert batch.y is not None
            x, y, index = [batch.x], [batch.y], [batch.index]
            role = [torch.full((count,), int(Role.LABELLED))]
        if known.few is not None:
            rows = _domains.drawn(len(known.few), min(count, len(known.few)))
            x.append(known.few.take(rows).to(device))
            y.append(known.few.y[rows].to(device))
            index.append(torch.full((len(rows),), -1, device=device))
            role.append(torch.full((len(rows),), int(Role.LABELLED)))
        if self.method in WEIGHTS:
            rows = self._rows = _domains.drawn(len(known.pool), count)
            x.append(known.pool.take(rows).to(device))
            y.append(torch.full((count,), -1, device=device))
            index.append(torch.full((count,), -1, device=device))
            role.append(torch.full((count,), int(Role.TARGET)))
        return Batch(torch.cat(x), torch.cat(y), torch.cat(index), torch.cat(role).to(device))

    def loss(self, run: Run, batch: Batch, output: Output) -> dict[str, Tensor]:
        """The method's terms, and the task loss where classes are weighed."""
        target = batch.rows(Role.TARGET)
        terms: dict[str, Tensor] = {}
        weight = WEIGHTS.get(self.method, 0.0) if self.weight is None else self.weight
        if self.method == "shot":
            labels = self._pseudo
            if labels is not None and self._rows is not None:
                labels = labels[self._rows].to(batch.x.device)
            terms |= {name: weight * term for name, term in _shot.shot(output.logits[target], labels).items()}
        elif self.method == "mcc" or (self.method in WEIGHTS and self._head + INPUT in output.taps):
            step = self._step(batch, output)
            if self.method in ADVERSARIES:
                assert self._discriminator is not None
                terms["domain"] = weight * ADVERSARIES[self.method](step, self._discriminator)
            else:
                terms[self.method] = weight * ramp(self._progress) * STATISTICS[self.method](step)
        if self._class_weights is not None and self.method != "shot":
            terms["task"] = self._weighted(run, batch, output)
        return terms

    def _step(self, batch: Batch, output: Output) -> Step:
        features = output.taps.get(self._head + INPUT, output.logits).flatten(1).float()
        source = batch.index >= 0
        return Step(features[source], features[~source], output.logits[source], output.logits[~source], self._progress)

    def _weighted(self, run: Run, batch: Batch, output: Output) -> Tensor:
        """Mean task loss over labelled rows, source rows weighed by their class."""
        assert batch.y is not None and self._class_weights is not None
        rows = batch.rows(Role.LABELLED)
        y = batch.y[rows]
        weights = self._class_weights.to(y.device)[y]
        weights = torch.where(batch.index[rows] >= 0, weights, torch.ones_like(weights))
        return (weights * run.task.loss(output.logits[rows], y, reduction="none")).mean()

    def callbacks(self, run: Run) -> list[Any]:
        """Progress of the fit, the target's statistics, the pseudo-labels."""
        from bigopt_plugins.transfer.domain_adaptation import _callbacks

        made: list[Any] = []
        if self.method in ADVERSARIES or self.method in STATISTICS:
            made.append(_callbacks.Progress(self._tell))
        if self.method == "adabn":
            made.append(_callbacks.AdaptStatistics(lambda: self._adapt(run)))
        if self.method == "shot" and isinstance(run.model, Network):
            made.append(_callbacks.PseudoLabels(lambda: self._label(run), self._put))
        return made

    def _tell(self, progress: float) -> None:
        self._progress = progress

    def _put(self, labels: Tensor) -> None:
        self._pseudo = labels

    def _label(self, run: Run) -> Tensor:
        assert self._target is not None
        pool = self._target.pool
        features, logits = _judging.embed(run.model, self._head, pool, rows=len(pool))
        return _shot.pseudo_labels(features, logits.softmax(1))

    def _adapt(self, run: Run) -> None:
        assert self._target is not None
        if isinstance(run.model, Network) and _adabn.batch_norms(run.model):
            _adabn.adapt_statistics(run.model, self._target.pool, run.settings.trainer.eval_batch_size)

    def metrics(self, run: Run, model: nn.Module, predict: Predict) -> dict[str, float]:
        """Agreement with the baseline, and what chooses epochs; the oracle's accuracy only if it is asked for."""
        known = self._target
        assert known is not None, "prepare was not called"
        logits = predict(known.held_out)
        values: dict[str, float] = {}
        if run.baseline is not None:
            values[AGREEMENT.metric] = _judging.agreement(logits, self._baseline(run, run.baseline))
        if self.selection == "information":
            values["target/information"] = -_shot.information(logits).item()
        elif self.selection == "snd":
            values["target/snd"] = soft_neighbourhood_density(logits)
        elif self.selection == "dev" and isinstance(model, Network):
            values["target/dev"] = _judging.dev_risk(model, self._head, run.data.train, run.data.val, known.pool)
        if self._truth is not None:
            values["oracle/accuracy"] = (logits.argmax(1) == self._truth.val.y).double().mean().item()
        return values

    def _baseline(self, run: Run, baseline: nn.Module) -> Tensor:
        """The baseline's outputs for held-out target inputs, computed once."""
        assert self._target is not None
        if self._reference is None or self._reference[0] is not baseline:
            outputs = predict(baseline, self._target.held_out, run.settings.trainer.eval_batch_size)
            self._reference = (baseline, outputs)
        return self._reference[1]

    def finish(self, run: Run, fit: Fit) -> None:
        """From here on models are compared by their agreement with this one on the target."""
        if self.method == "adabn":
            self._adapt(run)
        run.monitor = AGREEMENT
        if self.oracle:
            run.report.note("oracle/accuracy reads the target's validation labels; nothing is selected by it")
