"""Quantization of weights and activations to integers."""

from __future__ import annotations

from typing import ClassVar, Literal

from bigopt.vocabulary.errors import RequestError
from bigopt.vocabulary.part import Fit, Part, State
from bigopt.vocabulary.run import Run


class Quantization(Part):
    """Post-training static quantization to 8-bit integers, as ONNX Runtime's integer kernels want it.

    Convolutions, linear layers, residual additions, means and concatenations are quantized (Jacob et al. 2018,
    arXiv:1712.05877): weights symmetric per output channel, activations affine per tensor with ranges seen on training
    samples. Batch norm is folded first. The graph is exported (torchao PT2E) and cannot be trained or pruned after.

    Args:
        bits: width of weights and activations; 8.
        calibration: ``mse`` clips each activation range where the squared error is least, ``min_max`` takes the
            whole range.
        samples: training samples that the ranges are taken from.
        per_channel: one weight scale per output channel instead of one per tensor.
        reduce_range: 7-bit weights, for processors whose 8-bit products saturate at 16 bits (x86 without VNNI); null
            asks the processor.

    Raises:
        RequestError: an argument is out of range.
    """

    leaves: ClassVar[State] = "frozen"

    def __init__(
        self,
        bits: int = 8,
        calibration: Literal["mse", "min_max"] = "mse",
        samples: int = 512,
        per_channel: bool = True,
        reduce_range: bool | None = None,
    ) -> None:
        problems = []
        if bits != 8:
            problems.append(f"bits: got {bits}, expected 8")
        if calibration not in ("mse", "min_max"):
            problems.append(f"calibration: got {calibration!r}, expected mse or min_max")
        if samples < 1:
            problems.append(f"samples: got {samples}, expected at least 1")
        if problems:
            raise RequestError(problems)
        self.width = bits
        self.calibration = calibration
        self.samples = samples
        self.per_channel = per_channel
        self.reduce_range = reduce_range

    def epochs(self, run: Run) -> int:
        """None: ranges are read off the data, nothing is trained."""
        return 0

    def finish(self, run: Run, fit: Fit) -> None:
        """Calibrates on training samples and converts the model to integers."""
        import torch

        from bigopt_plugins.compression.quantization._static import convert, saturates

        generator = torch.Generator().manual_seed(run.seed)
        index = torch.randperm(len(run.data.train), generator=generator)[: self.samples]
        reduced = saturates() if self.reduce_range is None else self.reduce_range
        if reduced:
            run.report.note("weights use 7 bits of 8, since products saturate on this processor")
        converted = convert(
            run.model,
            run.data.train.take(index),
            calibration=self.calibration,
            per_channel=self.per_channel,
            reduce_range=reduced,
            ignore=run.options.ignore,
        )
        for name in converted.left_in_float:
            run.report.note(f"{name} stays in float: it matches ignore")
        run.report.value("quantized_layers", converted.quantized)
        run.model = converted.model

    def bits(self) -> tuple[int, int]:
        """Weights and activations have the configured width."""
        return self.width, self.width
