"""Fine-tuning: part of a pretrained network is frozen, the rest is trained."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from bigopt.train import STAY_EVAL
from bigopt.vocabulary.batch import Batch, Output
from bigopt.vocabulary.errors import RequestError
from bigopt.vocabulary.part import Fit, Part
from bigopt.vocabulary.run import Run
from bigopt_plugins.transfer import _adapters
from bigopt_plugins.transfer._features import feature_data, fold, scaled_head
from bigopt_plugins.transfer._layers import blocks, head_name, seeded, start_from, take_over
from bigopt_plugins.transfer._unfreezing import GradualUnfreezing, rates, split_groups

__all__ = ["FineTuning", "blocks", "take_over"]


class FineTuning(Part):
    """Freezes all but the last blocks of a pretrained network and trains the rest at a lower rate.

    How transferable features are falls with depth (Yosinski et al. 2014, arXiv:1411.1792). Frozen blocks keep their
    weights and their batch-norm statistics bit for bit. Without ``source`` the network keeps the weights it was built
    with (``model.weights``). All options combine: LP-FT is ``probe_epochs`` above 0.

    Args:
        trainable_blocks: number of last blocks that stay trainable, counting the head; 0 trains everything.
        source: where the weights come from: a dataset's name, a run folder, or a mapping with ``dataset`` and, unless
            they are this run's, ``model`` and ``lr``: the source model is then trained first (and cached). Of a list,
            LogME chooses. The head is new unless the classes are the same.
        source_epochs: passes over the source; null means ``trainer.max_epochs``.
        lr_scale: learning rate of the trainable blocks below the head, as a share of the head's.
        lr_decay: further share for each block on the way down (discriminative rates; ULMFiT, Howard and Ruder 2018,
            arXiv:1801.06146, takes 1 / 2.6).
        unfreeze_every: train the head alone first, and one more block below every so many epochs (gradual unfreezing,
            ULMFiT); 0 trains all trainable blocks from the start.
        probe_epochs: passes with which the new head is trained first on the frozen features, which are computed once
            (LP-FT, Kumar et al. 2022, arXiv:2202.10054).
        l2_sp: α of the penalty ``α/2 · ‖w - w⁰‖²`` that holds weights below the head at the source's (L2-SP, Li et al.
            2018, arXiv:1802.01483, eq. 3); it replaces their weight decay.
        l2_sp_head: β of ``β/2 · ‖w‖²`` on the head, which has no starting point.
        frozen_statistics: keep the running statistics of every batch norm, of trained blocks too.
        adapter: train adapters instead of the weights below the head, and merge them before compression and export
            (extra ``peft``).
        rank: of ``lora`` and ``dora``.
        adapter_alpha: ``lora`` and ``dora`` add ``adapter_alpha / rank`` times the product.
        adapter_dropout: share of an adapter's inputs that is dropped in training.
        adapt: name patterns of the linear layers with an adapter; empty takes those of the papers.

    Raises:
        RequestError: an argument is out of range, or peft is missing.
    """

    space: ClassVar[dict[str, str]] = {"lr_scale": "tag(log,interval(0.05,1.0))", "lr_decay": "interval(0.5,1.0)"}

    def __init__(
        self,
        trainable_blocks: int = 0,
        source: str | Mapping[str, Any] | list[Any] | None = None,
        source_epochs: int | None = None,
        lr_scale: float = 1.0,
        lr_decay: float = 1.0,
        unfreeze_every: int = 0,
        probe_epochs: int = 0,
        l2_sp: float = 0.0,
        l2_sp_head: float = 0.0,
        frozen_statistics: bool = False,
        adapter: Literal["lora", "dora", "ia3"] | None = None,
        rank: int = 8,
        adapter_alpha: float = 16.0,
        adapter_dropout: float = 0.0,
        adapt: tuple[str, ...] = (),
    ) -> None:
        counts = {"trainable_blocks": trainable_blocks, "unfreeze_every": unfreeze_every, "probe_epochs": probe_epochs}
        problems = [f"{name}: got {value}, expected 0 or more" for name, value in counts.items() if value < 0]
        shares = {"lr_scale": lr_scale, "lr_decay": lr_decay}
        problems += [f"{name}: got {v}, expected a share in (0, 1]" for name, v in shares.items() if not 0 < v <= 1]
        penalties = {"l2_sp": l2_sp, "l2_sp_head": l2_sp_head}
        problems += [f"{name}: got {value}, expected 0 or more" for name, value in penalties.items() if value < 0]
        if source_epochs is not None and source_epochs < 1:
            problems.append(f"source_epochs: got {source_epochs}, expected at least 1")
        if rank < 1:
            problems.append(f"rank: got {rank}, expected at least 1")
        if not 0 <= adapter_dropout < 1:
            problems.append(f"adapter_dropout: got {adapter_dropout}, expected a share in [0, 1)")
        if adapter is not None and unfreeze_every:
            problems.append("unfreeze_every: adapters leave every block frozen; set one of the two")
        if problems:
            raise RequestError(problems)
        if adapter is not None:
            _adapters.need_peft()
        self.trainable_blocks = trainable_blocks
        self.source = source
        self.source_epochs = source_epochs
        self.lr_scale = lr_scale
        self.lr_decay = lr_decay
        self.unfreeze_every = unfreeze_every
        self.probe_epochs = probe_epochs
        self.l2_sp = l2_sp
        self.l2_sp_head = l2_sp_head
        self.frozen_statistics = frozen_statistics
        self.adapter = adapter
        self.rank = rank
        self.adapter_alpha = adapter_alpha
        self.adapter_dropout = adapter_dropout
        self.adapt = tuple(adapt)
        self._start: dict[str, Tensor] = {}
        self._trained: dict[str, bool] = {}

    def prepare(self, run: Run, fit: Fit) -> None:
        """Takes over the source's weights, freezes the first blocks, trains the head, puts adapters in."""
        if self.source is not None:
            start_from(run, fit, self.source, self.source_epochs)
        self._freeze(run)
        self._start = {name: p.detach().clone() for name, p in run.model.named_parameters()} if self.l2_sp else {}
        if self.probe_epochs:
            self._probe(run, fit)
        if self.adapter is not None:
            self._insert(run)

    def loss(self, run: Run, batch: Batch, output: Output) -> dict[str, Tensor]:
        """The pull towards the starting point, on what has kept its shape since."""
        if not self.l2_sp and not self.l2_sp_head:
            return {}
        head = f"{head_name(run.model)}."
        terms = []
        for name, weight in run.model.named_parameters():
            if not weight.requires_grad:
                continue
            start = self._start.get(name)
            if name.startswith(head):
                terms.append(self.l2_sp_head / 2 * weight.square().sum())
            elif start is not None and start.shape == weight.shape:
                if start.device != weight.device:
                    start = self._start[name] = start.to(weight.device)
                terms.append(self.l2_sp / 2 * (weight - start).square().sum())
        return {"l2_sp": torch.stack(terms).sum()} if terms else {}

    def param_groups(self, run: Run, groups: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """A rate for each block; no decay towards zero where the penalty pulls to the starting point."""
        if self.l2_sp:
            held = {
                id(p) for name, p in run.model.named_parameters() if not name.startswith(f"{head_name(run.model)}.")
            }
            groups = [
                {**group, "params": params, **decay}
                for group in groups
                for params, decay in (
                    ([p for p in group["params"] if id(p) not in held], {}),
                    ([p for p in group["params"] if id(p) in held], {"weight_decay": 0.0}),
                )
            ]
        if self.lr_scale == self.lr_decay == 1.0:
            return groups
        return split_groups(run.model, groups, rates(blocks(run.model), self.lr_decay, self.lr_scale))

    def callbacks(self, run: Run) -> list[Any]:
        """Gradual unfreezing in the first fit; a compressed model recovers as a whole."""
        if not self.unfreeze_every or run.baseline is not None:
            return []
        return [GradualUnfreezing(run.model, blocks(run.model)[-self.trainable_blocks :], self.unfreeze_every)]

    def finish(self, run: Run, fit: Fit) -> None:
        """Merges the adapters."""
        if self.adapter is not None:
            count = _adapters.merge(run.model)
            for name, parameter in run.model.named_parameters():
                parameter.requires_grad_(self._trained[name])
            run.report.note(f"fine_tuning merged {count} adapters into their layers")

    def _freeze(self, run: Run) -> None:
        names = blocks(run.model)
        if self.trainable_blocks > len(names):
            raise RequestError(
                f"transfer.trainable_blocks: got {self.trainable_blocks}, the model has {len(names)} blocks: "
                + ", ".join(names)
            )
        if self.trainable_blocks:
            trained = [run.model.get_submodule(name) for name in names[-self.trainable_blocks :]]
            run.model.requires_grad_(False)
            for module in trained:
                module.requires_grad_(True)
            run.report.note(f"fine_tuning trains {', '.join(names[-self.trainable_blocks :])} and freezes the rest")
        for module in run.model.modules():
            if self.frozen_statistics and getattr(module, "running_mean", None) is not None:
                setattr(module, STAY_EVAL, True)

    def _probe(self, run: Run, fit: Fit) -> None:
        """Trains the head on features of the frozen rest."""
        cut = head_name(run.model)
        fork = run.fork(model=nn.Identity(), parts=[])
        fork.data = feature_data(run, run.model, cut)
        scaled = scaled_head(run.model.get_submodule(cut), fork.data.train.take(torch.arange(len(fork.data.train))))
        fork.model = scaled
        history = fit(fork, self.probe_epochs, name="probe")
        fold(scaled)
        run.report.note(f"fine_tuning: the head was trained alone first, best epoch {history.best_epoch}")

    def _insert(self, run: Run) -> None:
        net: Any = run.model.net if hasattr(run.model, "net") else run.model
        head = head_name(net)
        assert self.adapter is not None
        names, inputs = _adapters.targets(net, self.adapter, self.adapt, head)
        self._trained = {name: p.requires_grad for name, p in run.model.named_parameters()}
        with seeded(run, "adapter"):
            count = _adapters.insert(
                net, self.adapter, names, inputs, self.rank, self.adapter_alpha, self.adapter_dropout
            )
        net.get_submodule(head).requires_grad_(True)
        total = sum(p.numel() for p in run.model.parameters() if p.requires_grad)
        run.report.value("trained_parameters", total)
        run.report.note(f"fine_tuning: {self.adapter} on {len(names)} layers, {count} of {total} trained parameters")
