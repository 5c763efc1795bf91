"""Lightning callbacks of domain adaptation; imported only when a fit starts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pytorch_lightning.callbacks import Callback
from torch import Tensor


class Progress(Callback):
    """Tells which share of the fit is done, before every step.

    Args:
        tell: is told a value in [0, 1].
    """

    def __init__(self, tell: Callable[[float], None]) -> None:
        self.tell = tell

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        """Counts optimizer steps, those before a resumption included."""
        self.tell(pl_module.step / max(1, pl_module.job.epochs * pl_module.job.steps_per_epoch))


class AdaptStatistics(Callback):
    """Puts the target's batch-norm statistics in place before every epoch is judged.

    Args:
        adapt: does it.
    """

    def __init__(self, adapt: Callable[[], None]) -> None:
        self.adapt = adapt

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """After the last batch, since an epoch is judged before the callbacks hear of its end."""
        if batch_idx + 1 >= pl_module.job.batches:
            self.adapt()


class PseudoLabels(Callback):
    """Labels the target anew at the start of every epoch.

    Args:
        label: gives the labels.
        put: takes them.
    """

    def __init__(self, label: Callable[[], Tensor], put: Callable[[Tensor], None]) -> None:
        self.label = label
        self.put = put
        self.labels: Tensor | None = None

    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        """Labels; of an epoch that was interrupted, a checkpoint then brings back the labels that it began with."""
        self.labels = self.label()
        self.put(self.labels)

    def state_dict(self) -> dict[str, Any]:
        """The labels of this epoch."""
        return {} if self.labels is None else {"labels": self.labels}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes the labels of the epoch that was interrupted."""
        self.labels = state_dict["labels"]
        self.put(state_dict["labels"])
