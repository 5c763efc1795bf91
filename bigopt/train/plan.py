"""How a fit is computed: device, precision, memory format, compilation. Decided once and kept in the checkpoint."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from bigopt.train.job import Job

Precision = Literal["fp32", "bf16", "fp16"]


@dataclass(frozen=True)
class Plan:
    """The decisions.

    Attributes:
        accelerator: ``cpu`` or ``cuda``.
        precision: fp32, or autocast to bf16 or fp16.
        channels_last: memory format of images and convolutions.
        compile: whether the model is compiled.
    """

    accelerator: Literal["cpu", "cuda"] = "cpu"
    precision: Precision = "fp32"
    channels_last: bool = False
    compile: bool = False

    @property
    def dtype(self) -> torch.dtype | None:
        """Autocast's type, None without autocast."""
        return {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}[self.precision]

    @property
    def lightning_precision(self) -> Any:
        """The name that Lightning has for the precision."""
        return {"fp32": "32-true", "bf16": "bf16-mixed", "fp16": "16-mixed"}[self.precision]

    def state(self) -> dict[str, Any]:
        """Plain state for a checkpoint."""
        return asdict(self)

    def compiled(self, model: nn.Module, job: Job) -> Callable[[Tensor], Tensor]:
        """The model as the training step calls it."""
        raise NotImplementedError
