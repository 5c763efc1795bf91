"""Removal of whole channels, filters, neurons and attention heads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from bigopt.surgery import ChannelGroup, Groups
from bigopt.vocabulary.data import Data
from bigopt.vocabulary.errors import RequestError
from bigopt.vocabulary.network import Network
from bigopt.vocabulary.part import Fit, Part
from bigopt.vocabulary.run import Run
from bigopt_plugins.compression._criterion import Criterion, imported, is_path, own_scores
from bigopt_plugins.compression._from_sensitivity import Shares

FROM_SCAN = "from_sensitivity"
CRITERIA = ("random", "l1", "l2", "bn_scale", "fpgm", "lamp", "taylor", "hessian")


class ChannelPruning(Part):
    """Removes the least important channels, filters, neurons or heads, and everything that depended on them.

    Channels that a residual, a concatenation or attention ties together form one group (DepGraph, Fang et al. 2023,
    arXiv:2301.12900). Criteria: ``l1``/``l2`` norms of the filters (Li et al. 2017, arXiv:1608.08710), ``bn_scale``
    (network slimming, Liu et al. 2017, arXiv:1708.06519), ``fpgm`` (He et al. 2019, arXiv:1811.00250), ``lamp``
    (Lee et al. 2021, arXiv:2010.07611), ``taylor`` (Molchanov et al. 2019, arXiv:1906.10771), ``hessian``
    (LeCun et al. 1989, Optimal Brain Damage), ``random`` as the control.

    Args:
        ratio: share of the channels to remove, in [0, 1). ``from_sensitivity`` gives every group a share of its own:
            what its own drop in the sensitivity scan allows (``layer_drop``), scaled down together until ``total`` is
            removed over all.
        criterion: how channels are ranked; or the import path of a function of your own, ``package.module.function``,
            which is **imported and run**: ``function(group, model)`` gives one score for each of ``group.units`` (or
            of ``group.channels``) as a tensor, and the lowest are removed. ``group`` is a
            :class:`bigopt.surgery.ChannelGroup`, ``model`` is in evaluation mode, and
            ``model.get_submodule(group.name)`` is the layer whose outputs are ranked.
        ranking: ``local`` removes the share from every group, ``global`` ranks all groups against each other.
        round_to: remaining channels of a group are rounded up to a multiple of this where the group is wide enough;
            integer kernels like 16.
        min_channels: channels (heads in attention) that a group keeps at least.
        samples: training samples behind ``taylor`` and ``hessian``.
        total: share of all channels to remove where the ratio comes from the scan; less where the layers' own limits
            do not allow it.
        layer_drop: drop of the objective, without recovery, that a group may cause on its own; in the metric's unit.

    Raises:
        RequestError: an argument is out of range.
    """

    strengths: ClassVar[tuple[float, ...]] = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
    space: ClassVar[dict[str, str]] = {"ratio": "interval(0.1,0.8)"}

    def __init__(
        self,
        ratio: float | Literal["from_sensitivity"] = 0.5,
        criterion: Literal["random", "l1", "l2", "bn_scale", "fpgm", "lamp", "taylor", "hessian"] | str = "l2",
        ranking: Literal["local", "global"] = "local",
        round_to: int = 1,
        min_channels: int = 1,
        samples: int = 256,
        total: float = 0.5,
        layer_drop: float = 0.02,
    ) -> None:
        problems = []
        if isinstance(ratio, str) and ratio != FROM_SCAN:
            problems.append(f"ratio: got {ratio!r}, expected a share in [0, 1) or {FROM_SCAN}")
        elif not isinstance(ratio, str) and not 0 <= ratio < 1:
            problems.append(f"ratio: got {ratio}, expected a share in [0, 1)")
        if not 0 <= total < 1:
            problems.append(f"total: got {total}, expected a share in [0, 1)")
        if not layer_drop >= 0:
            problems.append(f"layer_drop: got {layer_drop}, expected 0 or more")
        self._own: Criterion | None = None
        if is_path(criterion):
            try:
                self._own = imported(criterion)
            except RequestError as error:
                problems += error.problems
        elif criterion not in CRITERIA:
            choices = ", ".join(CRITERIA)
            problems.append(f"criterion: got {criterion!r}, expected one of {choices}, or package.module.function")
        for name, value in (("round_to", round_to), ("min_channels", min_channels), ("samples", samples)):
            if value < 1:
                problems.append(f"{name}: got {value}, expected at least 1")
        if problems:
            raise RequestError(problems)
        self.ratio = ratio
        self.criterion = criterion
        self.ranking = ranking
        self.round_to = round_to
        self.min_channels = min_channels
        self.samples = samples
        self.total = total
        self.layer_drop = layer_drop
        self._shares: Shares | None = None

    def strength(self) -> float:
        """The configured ratio, or the total where the scan gives every group its own."""
        return self.total if isinstance(self.ratio, str) else self.ratio

    def recovery_lr(self, run: Run) -> float:
        """What is left after half of the units went has far to go: the full learning rate."""
        return 1.0

    def needs_scan(self) -> bool:
        """Whether the ratios come from the scan."""
        return self.ratio == FROM_SCAN

    def scanned(self, run: Run, rows: Sequence[Mapping[str, Any]]) -> None:
        """Works out what every group may lose, and shows it as a table."""
        if not self.needs_scan():
            return
        groups = Groups(_network(run), _example(run.data), run.options.ignore)
        self._shares = Shares.of(rows, {group.name: group.units for group in groups}, self.layer_drop)
        run.report.table("ratios_from_sensitivity", self._shares.table(self.total))
        reachable = self._shares.reachable()
        if reachable < self.total:
            run.report.note(
                f"a total ratio of {reachable:.3g} is removed, not {self.total:g}: more would let a layer's own drop "
                f"exceed {self.layer_drop:g}"
            )

    def prepare(self, run: Run, fit: Fit) -> None:
        """Counts what is removed from zero again (the step may be tried several times)."""
        if self._own is not None:
            run.report.note(f"channels are ranked by {self.criterion}, the user's own code, which was imported and run")
        if self._shares is not None:
            self._shares.reached = 0.0

    def layers(self, run: Run) -> Sequence[str]:
        """Root layers of the groups that can be pruned."""
        model = _network(run)
        return [group.name for group in Groups(model, _example(run.data), run.options.ignore)]

    def apply(self, run: Run, strength: float, only: str | None = None) -> None:
        """Removes this share of the remaining channels; the model is left as it was if that fails.

        Raises:
            RequestError: the model cannot be traced, or ``strict`` and a layer cannot be handled.
        """
        import copy

        model = copy.deepcopy(_network(run)).eval()
        groups = Groups(model, _example(run.data), run.options.ignore, run.options.strict)
        for name, reason in groups.unhandled.items():
            run.report.note(f"{name} was left as it was: {reason}")
        scored = self._scores(run, model, [group for group in groups if only is None or group.name == only], groups)
        ranking = self.ranking
        share: float | Mapping[str, float] = strength
        if self._shares is not None and only is None:
            share = self._shares.next({group.name: group.units for group, _ in scored}, strength)
            ranking = "local"
        for group, units in _choose(scored, share, ranking, self.round_to, self.min_channels):
            groups.remove(group, units)
        with torch.no_grad():
            model(_example(run.data))
        run.model = model

    def _scores(
        self, run: Run, model: Network, chosen: list[ChannelGroup], groups: Groups
    ) -> list[tuple[ChannelGroup, Tensor]]:
        """Importance ``(units,)`` of every group that the criterion can rank."""
        if self._own is not None:
            return [(group, own_scores(self._own, self.criterion, group, model)) for group in chosen]
        importance = _importance(self.criterion)
        if self.criterion == "random":
            generator = torch.Generator().manual_seed(run.seed)
            return [(group, torch.rand(group.units, generator=generator)) for group in chosen]
        if self.criterion in ("taylor", "hessian"):
            _accumulate(run, model, importance, self.samples, per_sample=self.criterion == "hessian")
        scored = []
        for group in chosen:
            with torch.no_grad():
                scores = importance(group.raw)
            if scores is None:
                run.report.note(f"{group.name} was left as it was: {self.criterion} has no score for it")
                continue
            scored.append((group, group.unit_scores(scores.detach().cpu())))
        model.zero_grad(set_to_none=True)
        return scored


def _network(run: Run) -> Network:
    if not isinstance(run.model, Network):
        raise RequestError(
            "channel_pruning needs a trainable model, got an exported or converted graph; put it before quantization"
        )
    return run.model


def _example(data: Data) -> Tensor:
    return data.train.take(torch.arange(min(2, len(data.train))))


def _importance(criterion: str) -> Any:
    from torch_pruning.pruner import importance as tp

    return {
        "random": tp.RandomImportance,
        "l1": lambda: tp.GroupMagnitudeImportance(p=1),
        "l2": lambda: tp.GroupMagnitudeImportance(p=2),
        "bn_scale": tp.BNScaleImportance,
        "fpgm": tp.FPGMImportance,
        "lamp": tp.LAMPImportance,
        "taylor": tp.GroupTaylorImportance,
        "hessian": tp.GroupHessianImportance,
    }[criterion]()


def _accumulate(run: Run, model: Network, importance: Any, samples: int, per_sample: bool) -> None:
    """Gradients of the training loss on training samples, as the first- and second-order criteria need them."""
    generator = torch.Generator().manual_seed(run.seed)
    index = torch.randperm(len(run.data.train), generator=generator)[:samples]
    x, y = run.data.train.take(index), run.data.train.y[index]
    model.eval()
    model.zero_grad(set_to_none=True)
    if not per_sample:
        run.task.loss(model(x), y).backward()
        return
    importance.zero_grad()
    for loss in run.task.loss(model(x), y, reduction="none").reshape(len(x), -1).mean(1):
        model.zero_grad(set_to_none=True)
        loss.backward(retain_graph=True)
        importance.accumulate_grad(model)


def _choose(
    scored: list[tuple[ChannelGroup, Tensor]],
    ratio: float | Mapping[str, float],
    ranking: str,
    round_to: int,
    least: int,
) -> list[tuple[ChannelGroup, list[int]]]:
    """Which units of which group go: the lowest scores, within what a group may lose."""
    if not scored or (not isinstance(ratio, Mapping) and ratio <= 0):
        return []
    threshold = None
    if ranking == "global" and not isinstance(ratio, Mapping):
        ranked = torch.cat([scores / scores.mean().clamp_min(1e-12) for _, scores in scored]).sort().values
        count = int(ratio * len(ranked))
        threshold = ranked[count - 1].item() if count else -1.0
    chosen = []
    for group, scores in scored:
        if threshold is None:
            lose = int((ratio.get(group.name, 0.0) if isinstance(ratio, Mapping) else ratio) * group.units + 1e-9)
        else:
            lose = int((scores / scores.mean().clamp_min(1e-12) <= threshold).sum())
        left = max(group.units - lose, least)
        if group.unit == 1 and group.units >= 2 * round_to:
            left = -(-left // round_to) * round_to
        lose = max(0, group.units - left)
        if lose:
            chosen.append((group, scores.argsort()[:lose].tolist()))
    return chosen
