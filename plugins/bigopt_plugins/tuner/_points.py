"""From an Optuna distribution to the values that enumerating tuners try."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution


def levels(distribution: BaseDistribution, points: int) -> list[Any]:
    """All values of a distribution in order, or evenly spaced ones of an interval (in the logarithm where it is log).

    Args:
        distribution: choices, whole numbers, or an interval with or without a step.
        points: values taken of an interval that has no step, and of whole numbers on a logarithmic scale.
    """
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if isinstance(distribution, CategoricalDistribution):
        return list(distribution.choices)
    if isinstance(distribution, IntDistribution):
        if not distribution.log:
            return list(range(distribution.low, distribution.high + 1, distribution.step))
        return list(dict.fromkeys(round(value) for value in _spaced(distribution.low, distribution.high, points, True)))
    if isinstance(distribution, FloatDistribution):
        if distribution.step is None:
            return _spaced(distribution.low, distribution.high, points, distribution.log)
        count = math.floor((distribution.high - distribution.low) / distribution.step + 1e-9) + 1
        return [distribution.low + place * distribution.step for place in range(count)]
    raise TypeError(f"got {type(distribution).__name__}, expected choices, whole numbers or an interval")


def _spaced(low: float, high: float, points: int, log: bool) -> list[float]:
    if points == 1 or low == high:
        return [low]
    if log:
        ratio = math.log(high / low) / (points - 1)
        inner = [low * math.exp(ratio * place) for place in range(1, points - 1)]
    else:
        inner = [low + (high - low) * place / (points - 1) for place in range(1, points - 1)]
    return [low, *inner, high]


def quantile(distribution: BaseDistribution, share: float) -> Any:
    """The value at this share in [0, 1) of a distribution, every value of a discrete one with an equal share.

    Whole numbers on a logarithmic scale have the share of the interval around them.
    """
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if isinstance(distribution, CategoricalDistribution):
        return distribution.choices[int(share * len(distribution.choices))]
    if isinstance(distribution, IntDistribution):
        if distribution.log:
            bottom, top = math.log(distribution.low - 0.5), math.log(distribution.high + 0.5)
            return min(max(round(math.exp(bottom + share * (top - bottom))), distribution.low), distribution.high)
        count = (distribution.high - distribution.low) // distribution.step + 1
        return distribution.low + distribution.step * int(share * count)
    if isinstance(distribution, FloatDistribution):
        low, high = distribution.low, distribution.high
        if distribution.step is not None:
            grid = levels(distribution, 1)
            return grid[int(share * len(grid))]
        if distribution.log:
            return min(math.exp(math.log(low) + share * (math.log(high) - math.log(low))), high)
        return low + share * (high - low)
    raise TypeError(f"got {type(distribution).__name__}, expected choices, whole numbers or an interval")
