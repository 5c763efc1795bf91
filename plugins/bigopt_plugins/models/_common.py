"""What the model plugins share: checks of their arguments, and initialisation."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable

from torch import nn

from bigopt.vocabulary.errors import RequestError


def refuse(*problems: Iterable[str]) -> None:
    """Raises one error with all problems, if there are any.

    Raises:
        RequestError: at least one problem was found.
    """
    found = [line for group in problems for line in group]
    if found:
        raise RequestError(found)


def at_least(minimum: float, **values: float) -> list[str]:
    """A problem for each value under ``minimum`` (or that is no number)."""
    return [
        f"{name}: got {value!r}, expected a number of at least {minimum:g}"
        for name, value in values.items()
        if isinstance(value, bool) or not isinstance(value, int | float) or not value >= minimum
    ]


def above(limit: float, **values: float) -> list[str]:
    """A problem for each value that is not above ``limit``."""
    return [
        f"{name}: got {value!r}, expected a number above {limit:g}"
        for name, value in values.items()
        if isinstance(value, bool) or not isinstance(value, int | float) or not value > limit
    ]


def counts(name: str, values: Collection[int], empty: bool = False) -> list[str]:
    """A problem if ``values`` are not all positive integers, or are none at all and ``empty`` is not allowed."""
    good = all(isinstance(value, int) and not isinstance(value, bool) and value >= 1 for value in values)
    if good and (values or empty):
        return []
    return [f"{name}: got {list(values)}, expected {'' if empty else 'at least one of '}positive whole numbers"]


def share(**values: float) -> list[str]:
    """A problem for each value outside [0, 1)."""
    return [
        f"{name}: got {value!r}, expected a number of at least 0 and below 1"
        for name, value in values.items()
        if not 0 <= value < 1
    ]


def choice(name: str, value: object, choices: Collection[object]) -> list[str]:
    """A problem if ``value`` is none of ``choices``; the nearest are named first."""
    if value in choices:
        return []
    near = difflib.get_close_matches(str(value), [str(one) for one in choices], n=3)
    hint = f"; did you mean {' or '.join(near)}?" if near else ""
    listed = ", ".join(str(one) for one in list(choices)[:40]) + (", …" if len(choices) > 40 else "")
    return [f"{name}: got {value!r}, expected one of {listed}{hint}"]


def scaled(channels: int, width: float, multiple: int = 1) -> int:
    """``channels`` times a width multiplier, rounded to a multiple and never under it."""
    return max(multiple, round(channels * width / multiple) * multiple)


def initialise(net: nn.Module, head: nn.Linear) -> None:
    """Initialises for ReLU nets (He et al. 2015), and the head for logits of unit variance.

    Args:
        net: its convolutions and linear layers get N(0, 2 / fan in), norms start as identities.
        head: the layer that gives the logits; it has no ReLU behind it, so N(0, 1 / fan in).
    """
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        elif isinstance(module, nn.Linear):
            nn.init.kaiming_normal_(module.weight, nonlinearity="linear" if module is head else "relu")
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.ones_(module.weight)
        if isinstance(module, nn.Conv2d | nn.Linear | nn.BatchNorm2d) and module.bias is not None:
            nn.init.zeros_(module.bias)


class ConvBnRelu(nn.Sequential):
    """Convolution, batch norm, ReLU: ``(N, in, H, W)`` to ``(N, out, H / stride, W / stride)``.

    Args:
        inputs: input channels.
        outputs: output channels.
        kernel: kernel size, odd; padded so that stride 1 keeps the size.
        stride: stride of the convolution.
        groups: groups of the convolution; ``inputs`` makes it depthwise.
        activation: module behind the norm; None for a linear output.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int = 3,
        *,
        stride: int = 1,
        groups: int = 1,
        activation: type[nn.Module] | None = nn.ReLU,
    ) -> None:
        super().__init__()
        self.add_module(
            "conv", nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, groups=groups, bias=False)
        )
        self.add_module("bn", nn.BatchNorm2d(outputs))
        if activation is not None:
            self.add_module("act", activation())
