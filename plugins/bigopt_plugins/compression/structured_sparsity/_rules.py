"""Prior knowledge: what somebody who knows the model says about its layers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from bigopt.vocabulary.errors import RequestError
from bigopt.vocabulary.patterns import fits
from bigopt_plugins.compression._channels import Units

ACTIONS = ("keep", "remove", "ratio", "together")


@dataclass(frozen=True)
class Rule:
    """One thing that is known beforehand.

    Args:
        match: pattern of layer names, such as ``stages.2.*``.
        action: ``keep`` leaves the layers out; ``remove`` takes the matched branches out, or the matched layers'
            ``units``; ``ratio`` removes this share of the matched layers' units, the weakest after the training with
            the penalty; ``together`` makes unit u of all matched layers one group, which goes or stays as a whole.
        ratio: share of the units, for ``ratio``.
        units: numbers of the units to remove, for ``remove``.
    """

    match: str
    action: Literal["keep", "remove", "ratio", "together"]
    ratio: float | None = None
    units: tuple[int, ...] = ()

    def problems(self, where: str) -> list[str]:
        """What is wrong with it, one line each."""
        found = []
        if self.action not in ACTIONS:
            found.append(f"{where}.action: got {self.action!r}, expected one of {', '.join(ACTIONS)}")
        if self.action == "ratio" and (self.ratio is None or not 0 <= self.ratio < 1):
            found.append(f"{where}.ratio: got {self.ratio}, expected a share in [0, 1)")
        if self.action != "ratio" and self.ratio is not None:
            found.append(f"{where}.ratio: got {self.ratio}, but the action is {self.action}")
        if self.action != "remove" and self.units:
            found.append(f"{where}.units: got {list(self.units)}, but the action is {self.action}")
        if any(unit < 0 for unit in self.units):
            found.append(f"{where}.units: got {list(self.units)}, expected numbers from 0")
        return found

    def hits(self, names: Iterable[str]) -> bool:
        """Whether one of the names matches."""
        return any(fits(name, [self.match]) for name in names)


def names_of(units: Units) -> tuple[str, ...]:
    """Names by which a rule can mean these units: the layers that compute them."""
    return tuple(side.name for side in units.makes) or units.group.layers


def unused(rules: Sequence[Rule], names: Sequence[str]) -> list[str]:
    """A line for each rule that matches nothing."""
    return [
        f"rules[{i}].match: {rule.match!r} matches no layer" for i, rule in enumerate(rules) if not rule.hits(names)
    ]


def kept(rules: Sequence[Rule], names: Iterable[str]) -> bool:
    """Whether a rule says that these stay."""
    names = tuple(names)
    return any(rule.action == "keep" and rule.hits(names) for rule in rules)


def ratio_of(rules: Sequence[Rule], units: Units) -> float | None:
    """The share that the last rule for these units asks for."""
    ratios = [rule.ratio for rule in rules if rule.action == "ratio" and rule.hits(names_of(units))]
    return ratios[-1] if ratios else None


def bundles(rules: Sequence[Rule], found: Sequence[Units]) -> list[list[Units]]:
    """The units, those together that a rule joins.

    Raises:
        RequestError: joined layers have different numbers of units.
    """
    joined: dict[int, list[Units]] = {}
    for place, units in enumerate(found):
        number = next((i for i, r in enumerate(rules) if r.action == "together" and r.hits(names_of(units))), None)
        joined.setdefault(-1 - place if number is None else number, []).append(units)
    problems = [
        f"rules[{number}]: {rules[number].match!r} joins layers of different widths: "
        + ", ".join(f"{units.name} has {units.count}" for units in bundle)
        for number, bundle in joined.items()
        if len({units.count for units in bundle}) > 1
    ]
    if problems:
        raise RequestError(problems)
    return list(joined.values())
