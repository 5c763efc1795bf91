"""Fine-tuning: part of a pretrained network is frozen, the rest is trained."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from torch import nn

from bigopt.vocabulary.errors import RequestError
from bigopt.vocabulary.part import Fit, Part
from bigopt.vocabulary.run import Run


class FineTuning(Part):
    """Freezes all but the last blocks of a pretrained network and trains the rest at a lower rate.

    How transferable features are falls with depth (Yosinski et al. 2014, arXiv:1411.1792). Frozen blocks keep their
    weights and their batch-norm statistics bit for bit. Without ``source`` the network keeps the weights it was built
    with (``model.weights``).

    Args:
        trainable_blocks: number of last blocks that stay trainable, counting the head; 0 trains everything.
        source: where the weights come from: a run folder, or a mapping with ``dataset`` and, unless it is this
            run's, ``model``: the source model is then trained first (and cached). The head is replaced where the number
            of classes differs.
        source_epochs: passes over the source; null means ``trainer.max_epochs``.
        lr_scale: learning rate of the trainable blocks below the head, as a share of the head's.

    Raises:
        RequestError: an argument is out of range.
    """

    def __init__(
        self,
        trainable_blocks: int = 0,
        source: str | Mapping[str, Any] | None = None,
        source_epochs: int | None = None,
        lr_scale: float = 1.0,
    ) -> None:
        problems = []
        if trainable_blocks < 0:
            problems.append(f"trainable_blocks: got {trainable_blocks}, expected 0 or more")
        if not 0 < lr_scale <= 1:
            problems.append(f"lr_scale: got {lr_scale}, expected a share in (0, 1]")
        if source_epochs is not None and source_epochs < 1:
            problems.append(f"source_epochs: got {source_epochs}, expected at least 1")
        if problems:
            raise RequestError(problems)
        self.trainable_blocks = trainable_blocks
        self.source = source
        self.source_epochs = source_epochs
        self.lr_scale = lr_scale

    def prepare(self, run: Run, fit: Fit) -> None:
        """Loads or trains the source model, takes over what fits, and freezes the first blocks."""
        if self.source is not None:
            copied, fresh = take_over(run.model, self._source_model(run, fit))
            run.report.note(
                f"fine_tuning took over {copied} tensors from the source; new: {', '.join(fresh) or 'none'}"
            )
        names = blocks(run.model)
        if self.trainable_blocks > len(names):
            raise RequestError(
                f"transfer.trainable_blocks: got {self.trainable_blocks}, the model has {len(names)} blocks: "
                + ", ".join(names)
            )
        if self.trainable_blocks:
            for name in names[: -self.trainable_blocks]:
                run.model.get_submodule(name).requires_grad_(False)
            run.report.note(f"fine_tuning trains {', '.join(names[-self.trainable_blocks :])} and freezes the rest")

    def param_groups(self, run: Run, groups: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Everything below the head learns at ``lr_scale`` of the head's rate."""
        if self.lr_scale == 1.0:
            return groups
        head = {id(parameter) for parameter in run.model.get_submodule(blocks(run.model)[-1]).parameters()}
        split = []
        for group in groups:
            above = [p for p in group["params"] if id(p) in head]
            below = [p for p in group["params"] if id(p) not in head]
            split += [{**group, "params": above}] if above else []
            split += [{**group, "params": below, "lr": group["lr"] * self.lr_scale}] if below else []
        return split

    def _source_model(self, run: Run, fit: Fit) -> nn.Module:
        if isinstance(self.source, str) and not _is_dataset(self.source):
            return run.build.model(self.source, run.data)
        mapping = {"dataset": self.source} if isinstance(self.source, str) else dict(self.source or {})
        unknown = set(mapping) - {"dataset", "model"}
        if unknown or "dataset" not in mapping:
            raise RequestError(f"transfer.source: got {mapping}, expected a run folder, or dataset and model")
        data = run.build.dataset(mapping["dataset"])
        model = run.build.model(mapping.get("model", run.settings.extra["model"]), data)
        source = run.fork(model=model, parts=[])
        source.data = data
        source.task = type(run.task).of(data.schema)
        fit(source, self.source_epochs, name="source", share=True)
        return source.model


def blocks(model: nn.Module) -> list[str]:
    """Names of the modules with parameters, one level below the network's containers, in order of definition."""
    return list(_blocks(model, ""))


def _blocks(module: nn.Module, prefix: str) -> Iterator[str]:
    for name, child in module.named_children():
        if not any(True for _ in child.parameters()):
            continue
        path = f"{prefix}.{name}" if prefix else name
        container = prefix == "" or isinstance(child, nn.Sequential | nn.ModuleList | nn.ModuleDict)
        if container and any(True for _ in child.children()):
            yield from _blocks(child, path)
        else:
            yield path


def take_over(model: nn.Module, source: nn.Module) -> tuple[int, list[str]]:
    """Copies every tensor whose name and shape agree, normalisation of the input excepted.

    Returns:
        number of tensors copied, and names of those that keep their own values.

    Raises:
        RequestError: nothing agrees.
    """
    own = model.state_dict()
    theirs = source.state_dict()
    shared = {
        name: theirs[name]
        for name, value in own.items()
        if not name.startswith("normalize.") and name in theirs and theirs[name].shape == value.shape
    }
    if not shared:
        raise RequestError("transfer.source: no tensor of the source model fits this model; use the same architecture")
    model.load_state_dict(shared, strict=False)
    return len(shared), [name for name in own if name not in shared and not name.startswith("normalize.")]


def _is_dataset(name: str) -> bool:
    return "/" not in name and "\\" not in name and name.isidentifier()
