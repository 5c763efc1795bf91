"""What stands between a value and its integers: one module a weight, one an activation."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from bigopt_plugins.compression.quantization._grid import Granularity, Grid, fake, rows_of, to_integers
from bigopt_plugins.compression.quantization._lsq import gradient_scale, learned, learned_fake


def operators() -> Any:
    """Operators of integer graphs, which are registered by an import."""
    import torch.ao.quantization.fx._decomposed  # noqa: F401

    return torch.ops.quantized_decomposed


class WeightQuantizer(nn.Module):
    """Rounds a weight; steps are per tensor, output channel, or group within one.

    Attributes:
        start: calibrated steps ``(R, 1)``.
        zero: integers that stand for 0 ``(R, 1)``.
        ratio: learned factor on each step ``(R,)``.
        integers: of the frozen weight, int8; groups are rows, else it is shaped as the weight is read.
        scales: steps of the frozen weight ``(R,)``.
        zeros: its integers that stand for 0 ``(R,)`` int8.

    Args:
        grid: of the integers.
        granularity: which weights share a step.
        group_size: weights of a group.
        steps: ``start``.
        zeros: ``zero``.
        count: weights that share a step.
    """

    start: Tensor
    zero: Tensor
    integers: Tensor | None
    scales: Tensor | None
    zeros: Tensor | None

    def __init__(
        self, grid: Grid, granularity: Granularity, group_size: int, steps: Tensor, zeros: Tensor, count: int
    ) -> None:
        super().__init__()
        self.grid = grid
        self.granularity: Granularity = granularity
        self.group_size = group_size
        self.scale = gradient_scale(count, grid.high)
        self.register_buffer("start", steps.clone())
        self.register_buffer("zero", zeros.clone())
        self.register_buffer("integers", None)
        self.register_buffer("scales", None)
        self.register_buffer("zeros", None)
        self.constants = 1.0, 0
        self.shape = torch.Size()
        self.transpose = False
        self.ratio = nn.Parameter(torch.ones(len(steps)).to(steps), requires_grad=False)

    def step(self) -> Tensor:
        """Steps ``(R, 1)``, with gradients."""
        return learned(self.start, self.ratio.unsqueeze(1))

    def forward(self, weight: Tensor) -> Tensor:
        """The numbers that the integers of a weight stand for; gradients reach the weight and the steps."""
        rows = rows_of(weight.float(), self.granularity, self.group_size)
        if self.ratio.requires_grad:
            rounded = learned_fake(rows, self.step(), self.zero, self.grid.low, self.grid.high, self.scale)
        else:
            rounded = fake(rows, self.step(), self.zero, self.grid)
        return rounded.reshape(weight.shape).to(weight.dtype)

    @torch.no_grad()
    def freeze(self, weight: Tensor, factor: Tensor | None = None, transpose: bool = False) -> None:
        """Keeps the integers for good.

        Args:
            weight: what is rounded.
            factor: positive, on each output channel ``(out,)``; the steps take it in, the integers stay.
            transpose: of a matrix: whether it is wanted transposed.
        """
        rows = rows_of(weight.float(), self.granularity, self.group_size)
        integers = to_integers(rows, self.step(), self.zero, self.grid).to(torch.int8)
        scales, zeros = self.step(), self.zero
        if factor is not None:
            if self.granularity == "per_tensor":
                self.granularity = "per_channel"
                integers = integers.reshape(len(weight), -1)
                scales, zeros = scales.expand(len(weight), 1), zeros.expand(len(weight), 1)
            scales = scales * factor.repeat_interleave(len(scales) // len(factor)).unsqueeze(1)
        if self.granularity != "per_group":
            integers = integers.reshape(weight.shape)
            integers = integers.t().contiguous() if transpose else integers
        self.shape, self.transpose = weight.shape, transpose
        self.integers = integers
        self.scales = scales.clamp_min(torch.finfo(torch.float32).tiny).reshape(-1).clone()
        self.zeros = zeros.reshape(-1).to(torch.int8)
        self.constants = float(self.scales[0]), int(zeros.reshape(-1)[0])

    def dequantized(self) -> Tensor:
        """The frozen weight as an operator on its integers, transposed if it was frozen so."""
        assert self.integers is not None and self.scales is not None
        if self.granularity == "per_tensor":
            out: Tensor = operators().dequantize_per_tensor(
                self.integers, *self.constants, self.grid.low, self.grid.high, torch.int8
            )
            return out
        axis = 1 if self.transpose and self.granularity == "per_channel" else 0
        out = operators().dequantize_per_channel(
            self.integers, self.scales, self.zeros, axis, self.grid.low, self.grid.high, torch.int8
        )
        if self.granularity == "per_channel":
            return out
        out = out.reshape(self.shape)
        return out.t() if self.transpose else out

    def looked_up(self, ids: Tensor) -> Tensor:
        """Rows ``(…, D)`` of a frozen embedding ``(V, D)`` at ids ``(…)``, gathered as integers."""
        assert self.integers is not None and self.scales is not None
        table = self.integers.reshape(self.shape)
        integers = functional.embedding(ids, table)
        rows: Tensor = operators().dequantize_per_tensor(integers, 1.0, 0, self.grid.low, self.grid.high, torch.int8)
        if len(self.scales) == 1:
            step, zero = self.constants
            return (rows - zero) * step if zero else rows * step
        shape = (len(table), len(self.scales) // len(table), 1)
        rows = rows.unflatten(-1, (shape[1], -1))
        if self.zeros is not None and not self.grid.symmetric:
            rows = rows - self.zeros.float().reshape(shape)[ids]
        return (rows * self.scales.reshape(shape)[ids]).flatten(-2)


class ActivationQuantizer(nn.Module):
    """Rounds an activation to unsigned integers with one step.

    Attributes:
        start: calibrated step, ``(1,)``.
        zero: integer that stands for 0, ``(1,)``.
        ratio: learned factor on the step, ``(1,)``.

    Args:
        grid: of the integers.
        step: ``start``.
        zero: ``zero``.
        features: values of one sample.
    """

    start: Tensor
    zero: Tensor

    def __init__(self, grid: Grid, step: float, zero: float, features: int) -> None:
        super().__init__()
        self.grid = grid
        self.scale = gradient_scale(features, grid.high)
        self.register_buffer("start", torch.tensor([step]))
        self.register_buffer("zero", torch.tensor([zero]))
        self.ratio = nn.Parameter(torch.ones(1), requires_grad=False)
        self.constants = step, int(zero)

    def step(self) -> Tensor:
        """The step ``(1,)``, with gradients."""
        return learned(self.start, self.ratio)

    def forward(self, x: Tensor) -> Tensor:
        """The numbers that the integers stand for."""
        if self.ratio.requires_grad:
            return learned_fake(x, self.step(), self.zero, self.grid.low, self.grid.high, self.scale)
        return fake(x.float(), self.step(), self.zero, self.grid).to(x.dtype)

    def freeze(self) -> None:
        """Keeps the step and the zero point for good, as numbers."""
        self.constants = float(self.step()), int(self.zero)

    def as_integers(self, x: Tensor) -> Tensor:
        """The same, frozen, in operators of integer graphs; fewer than 256 levels are cut among the integers."""
        grid, (step, zero) = self.grid, self.constants
        integers = operators().quantize_per_tensor(x, step, zero, 0, 255, torch.uint8)
        if grid.high < 255:
            integers = integers.clamp(grid.low, grid.high)
        out: Tensor = operators().dequantize_per_tensor(integers, step, zero, grid.low, grid.high, torch.uint8)
        return out

    def absorbs(self, low: float, high: float) -> bool:
        """Whether rounding alone, frozen, already clips to this range."""
        step, zero = self.constants
        return low == 0 and zero == self.grid.low and (self.grid.high - zero - 0.5) * step <= high


def dynamic(x: Tensor) -> Tensor:
    """Rounds to 8 bits over the range that the values of this very batch have (ONNX's DynamicQuantizeLinear)."""
    low, high = x.min().clamp_max(0.0), x.max().clamp_min(0.0)
    step = ((high - low) / 255.0).clamp_min(1e-12)
    zero = (-low / step).round().clamp(0.0, 255.0).to(torch.int64)
    integers = operators().quantize_per_tensor.tensor(x, step, zero, 0, 255, torch.uint8)
    out: Tensor = operators().dequantize_per_tensor.tensor(integers, step, zero, 0, 255, torch.uint8)
    return out
