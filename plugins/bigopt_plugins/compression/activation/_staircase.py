"""Staircases in the place of activations: learned step size (LSQ) or learned clipping (PACT)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

SMALLEST = 1e-6
"""Below this a step would be no step."""


def round_through(x: Tensor) -> Tensor:
    """Rounds to the nearest, with the gradient of the identity (straight-through estimator)."""
    return x + (x.round() - x).detach()


def scale_gradient(x: Tensor, factor: float) -> Tensor:
    """The same value, with its gradient times a factor."""
    return (x - x * factor).detach() + x * factor


def lsq(x: Tensor, step: Tensor, levels: int) -> Tensor:
    """``s · round(clip(x/s, 0, Q_P))``, ``Q_P = levels − 1`` (Esser et al. 2020, arXiv:1902.08153, eq. 1 and 2).

    The gradient to s is ``−x/s + round(x/s)`` inside the range, 0 below and Q_P above it (eq. 3), times
    ``g = 1/√(N·Q_P)`` for N features of one sample (section 2.2); the gradient to x is 1 inside and 0 outside (eq. 5).
    """
    top = levels - 1
    step = scale_gradient(step.clamp_min(SMALLEST), (x[0].numel() * top) ** -0.5)
    return round_through((x / step).clamp(0, top)) * step


def pact(x: Tensor, clip: Tensor, levels: int) -> Tensor:
    """``round(y·(k−1)/α)·α/(k−1)`` with ``y = (|x| − |x − α| + α)/2`` (Choi et al. 2018, arXiv:1805.06085, eq. 1, 2).

    The gradient to α is 1 where x ≥ α and 0 elsewhere (eq. 3); rounding lets gradients through.
    """
    clip = clip.clamp_min(SMALLEST)
    y = 0.5 * (x.abs() - (x - clip).abs() + clip)
    step = clip.detach() / (levels - 1)
    return y + ((y / step).round() * step - y).detach()


class Staircase(nn.Module):
    """A ReLU-like staircase with k levels from 0 upwards.

    Exported as QuantizeLinear and DequantizeLinear to and from 8-bit integers, and a clip to the highest level.

    Args:
        levels: k, from 2 to 256.
        rule: ``lsq`` learns the step, ``pact`` the clipping at the highest level.
        step: height of one step at the start.
    """

    def __init__(self, levels: int, rule: str, step: float) -> None:
        super().__init__()
        self.levels = levels
        self.rule = rule
        self.size = nn.Parameter(torch.tensor([step if rule == "lsq" else step * (levels - 1)]))
        self._exported = step

    def step(self) -> Tensor:
        """Height of one step ``(1,)``."""
        size = self.size if self.rule == "lsq" else self.size / (self.levels - 1)
        return size.clamp_min(SMALLEST)

    def forward(self, x: Tensor) -> Tensor:
        """The staircase, elementwise."""
        if torch.compiler.is_exporting():
            return self._integers(x)
        if not self.training:
            # The step is a constant here: tracing for removal counts channels wrongly where operations on a parameter
            # join those on an activation.
            step = self.step().detach()
            return round_through((x / step).clamp(0, self.levels - 1)) * step
        return lsq(x, self.size, self.levels) if self.rule == "lsq" else pact(x, self.size, self.levels)

    def _integers(self, x: Tensor) -> Tensor:
        """The same through integers, as exporters know it; the step is a constant there."""
        from torch.ao.quantization.fx import _decomposed  # noqa: F401, registers the operators

        ops = torch.ops.quantized_decomposed
        spec = (self._exported, 0, 0, 255, torch.uint8)
        out: Tensor = ops.dequantize_per_tensor(ops.quantize_per_tensor(x, *spec), *spec)
        # Clipped here and not before: where integers go straight into a layer whose output becomes integers as well,
        # ONNX Runtime rounds the layer's float weights to 8 bits on loading, and its answers change.
        return out.clamp(0.0, self._exported * (self.levels - 1))

    def train(self, mode: bool = True) -> Staircase:
        """Switches modes; evaluation fixes the step that an export writes."""
        super().train(mode)
        self._keep()
        return self

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], *args: Any, **kwargs: Any) -> None:
        super()._load_from_state_dict(state_dict, *args, **kwargs)
        self._keep()

    def _keep(self) -> None:
        if self.size.device.type != "meta":
            self._exported = float(self.step().detach())


def best_step(x: Tensor, y: Tensor, levels: int, tries: int = 200) -> tuple[float, float]:
    """The step with the least squared error of the staircase of x against y, and its root mean square.

    Args:
        x: observed inputs, flat.
        y: the activation's outputs.
        levels: of the staircase.
        tries: steps that are tried, evenly up to the one that reaches the greatest output.
    """
    top = max(float(y.max()), 1e-3) / (levels - 1)
    best = (top, float("inf"))
    for number in range(1, tries + 1):
        step = top * number / tries * 1.2
        error = float(((x / step).round().clamp(0, levels - 1) * step - y).square().mean())
        best = min(best, (step, error), key=lambda pair: pair[1])
    return best[0], best[1] ** 0.5
