"""What one fit is to do, as all parts of the training package see it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cached_property

from torch import nn

from bigopt.data.batches import batch_count
from bigopt.train import ddp
from bigopt.vocabulary.part import Part
from bigopt.vocabulary.run import Run


@dataclass
class Job:
    """One fit.

    Attributes:
        run: what is trained.
        name: what progress, history and checkpoints call the fit.
        epochs: passes over the training split.
        lr: peak learning rate.
        parts: whose hooks act.
        modules: auxiliary modules of the Parts, by ``<position of the Part>.<name>``.
        seed: from which the order of the data follows.
        taps: names of the model's modules whose outputs the Parts want.
        offset: epochs of the run before this fit, for the global count.
    """

    run: Run
    name: str
    epochs: int
    lr: float
    parts: list[Part]
    modules: dict[str, nn.Module]
    seed: int
    taps: tuple[str, ...] = ()
    offset: int = 0
    notes: list[str] = field(default_factory=list)

    @cached_property
    def batch_size(self) -> int:
        """Rows of one batch on one rank."""
        size = self.run.settings.trainer.batch_size
        assert not isinstance(size, str)  # found before any batch is asked for
        return max(1, size // ddp.world_size())

    @cached_property
    def drop_last(self) -> bool:
        """Whether the last batch would hold one row only, which batch norm cannot train on."""
        rows = math.ceil(len(self.run.data.train) / ddp.world_size())
        return self.batch_size > 1 and rows % self.batch_size == 1 and rows > 1

    @cached_property
    def batches(self) -> int:
        """Batches of one epoch, the same on every rank."""
        return batch_count(
            len(self.run.data.train), self.batch_size, drop_last=self.drop_last, world_size=ddp.world_size()
        )

    @cached_property
    def steps_per_epoch(self) -> int:
        """Optimizer steps of one epoch."""
        return math.ceil(self.batches / self.run.settings.trainer.accumulate)

    @cached_property
    def shown(self) -> bool:
        """Whether this process tells ``run.progress``: rank 0 only."""
        return ddp.rank() == 0


def companions(job: Job) -> list[nn.Module]:
    """Modules that Parts may call in a fit without training them: the baseline, and what the Parts hold themselves."""
    held = [value for part in job.parts for value in vars(part).values() if isinstance(value, nn.Module)]
    trained = {id(module) for root in (job.run.model, *job.modules.values()) for module in root.modules()}
    baseline = [] if job.run.baseline is None else [job.run.baseline]
    return [module for module in (*baseline, *held) if id(module) not in trained]


def auxiliary_modules(run: Run, parts: list[Part]) -> dict[str, nn.Module]:
    """The Parts' auxiliary modules under names that cannot collide."""
    return {f"{i}.{name}": module for i, part in enumerate(parts) for name, module in part.modules(run).items()}


def wanted_taps(run: Run, parts: list[Part]) -> tuple[str, ...]:
    """Union of the Parts' taps, in order of first mention."""
    return tuple(dict.fromkeys(name for part in parts for name in part.taps(run)))
