"""The space of a sweep: what is searched, what counts only with something else, what is forbidden, what is fixed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from bigopt.search.conditions import Rule, forbidden
from bigopt.search.parameter import Parameter
from bigopt.vocabulary.errors import RequestError

if TYPE_CHECKING:
    import optuna
    from optuna.distributions import BaseDistribution

Custom = Callable[[dict[str, Any], Any], None]


@dataclass(frozen=True)
class Space:
    """What a sweep searches.

    Attributes:
        parameters: what is searched, each after those that its conditions name.
        fixed: overrides that every trial has, each with the rules under which it counts.
        forbid: combinations of rules that no trial may meet all at once.
        known: values of configuration keys that conditions name and that are not searched.
        custom: the user's function of the configuration and the trial that suggests further parameters.
        custom_name: what the configuration calls it.
        config: the sweep's configuration, for the custom function.
    """

    parameters: tuple[Parameter, ...] = ()
    fixed: tuple[tuple[str, tuple[Rule, ...]], ...] = ()
    forbid: tuple[tuple[Rule, ...], ...] = ()
    known: Mapping[str, Any] = field(default_factory=dict)
    custom: Custom | None = None
    custom_name: str | None = None
    config: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def distributions(self) -> dict[str, BaseDistribution]:
        """Optuna's distributions by name."""
        return {parameter.name: parameter.distribution() for parameter in self.parameters}

    def suggest(self, trial: optuna.Trial) -> dict[str, Any]:
        """Values of the parameters that count in this trial; the sampler chooses those that are not fixed."""
        values: dict[str, Any] = {}
        for parameter in self.parameters:
            if self.counts(parameter, values):
                values[parameter.name] = trial._suggest(parameter.name, self.distributions[parameter.name])
        if self.custom is not None:
            self.custom(dict(self.config), trial)
            values |= {name: value for name, value in trial.params.items() if name not in values}
        return values

    def counts(self, parameter: Parameter, values: Mapping[str, Any]) -> bool:
        """Whether a parameter's conditions hold among values chosen before it."""
        return all(rule.holds(self.seen(values)) for rule in parameter.when)

    def projected(self, point: Mapping[str, Any]) -> dict[str, Any]:
        """A point without the values of parameters that do not count in it."""
        values: dict[str, Any] = {}
        for parameter in self.parameters:
            if parameter.name in point and self.counts(parameter, values):
                values[parameter.name] = point[parameter.name]
        return values

    def forbids(self, values: Mapping[str, Any]) -> bool:
        """Whether these values meet a forbidden combination."""
        return bool(self.forbid) and forbidden(self.forbid, self.seen(values))

    def lines(self, values: Mapping[str, Any]) -> list[str]:
        """The overrides of a trial: what is fixed, then what was chosen."""
        seen = self.seen(values)
        by_name = {parameter.name: parameter for parameter in self.parameters}
        return [line for line, when in self.fixed if all(rule.holds(seen) for rule in when)] + [
            by_name[name].line(value) if name in by_name else f"{name}={_plain(value)}"
            for name, value in values.items()
        ]

    def seen(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Values as conditions see them, with those that are not searched."""
        by_name = {parameter.name: parameter for parameter in self.parameters}
        return {**self.known, **{n: by_name[n].meaning(v) if n in by_name else v for n, v in values.items()}}

    def checked(self, point: Mapping[str, Any], path: str) -> dict[str, Any]:
        """A point given by hand, in Optuna's form, without what does not count in it.

        Raises:
            RequestError: a name or a value that the space does not have.
        """
        by_name = {parameter.name: parameter for parameter in self.parameters}
        values, problems = {}, []
        for name, value in point.items():
            if name not in by_name:
                problems.append(f"{path}: {name} is not searched, expected {', '.join(by_name) or 'nothing'}")
                continue
            try:
                values[name] = by_name[name].accepts(value)
            except RequestError as error:
                problems += [f"{path}: {problem}" for problem in error.problems]
        if problems:
            raise RequestError(problems)
        return self.projected(values)

    def corners(self) -> list[dict[str, Any]]:
        """Points that together make every choice, and reach the least and the largest value of every number."""
        first = {parameter.name: parameter.corner(last=False) for parameter in self.parameters}
        last = {parameter.name: parameter.corner(last=True) for parameter in self.parameters}
        points = [first, last]
        for parameter in self.parameters:
            points += [{**first, parameter.name: choice} for choice in parameter.choices[1:-1]]
        projected = [self.projected(point) for point in points]
        return [point for n, point in enumerate(projected) if point not in projected[:n] and not self.forbids(point)]

    def described(self) -> dict[str, str]:
        """The space in words, by name, for comparing two of them."""
        said = {parameter.name: parameter.described() for parameter in self.parameters}
        for number, combination in enumerate(self.forbid):
            said[f"forbid {number + 1}"] = " and ".join(map(str, combination))
        return said | ({"custom_search_space": self.custom_name} if self.custom_name else {})

    def __bool__(self) -> bool:
        return bool(self.parameters) or self.custom is not None


def ordered(parameters: Iterable[Parameter]) -> tuple[Parameter, ...]:
    """The parameters, each after those that its conditions name; otherwise as they came. A later one of the same name
    takes the place of an earlier one.

    Raises:
        RequestError: conditions go in a circle.
    """
    left = {parameter.name: parameter for parameter in parameters}
    names, done = set(left), dict[str, Parameter]()
    while left:
        ready = [p for p in left.values() if all(rule.name in done or rule.name not in names for rule in p.when)]
        if not ready:
            raise RequestError(f"when: the conditions of {', '.join(left)} go in a circle")
        done[ready[0].name] = left.pop(ready[0].name)
    return tuple(done.values())


def belonging(
    parameters: Sequence[Parameter], lines: Sequence[tuple[str, str]], has: Callable[[str, str, str], bool]
) -> tuple[list[Parameter], list[tuple[str, tuple[Rule, ...]]]]:
    """Parameters and fixed overrides, with conditions where their key is there under some choices only.

    Args:
        parameters: what is searched.
        lines: fixed overrides, each with its key.
        has: whether there is a key, the third argument, once a group, the first, has a choice, the second.
    """
    groups = [parameter for parameter in parameters if parameter.kind == "choice"]

    def under(key: str) -> tuple[Rule, ...]:
        found: list[Rule] = []
        for group in groups:
            if key == group.name or not key.startswith(f"{group.name}."):
                continue
            holding = [
                (choice, text) for choice, text in zip(group.choices, group.texts, strict=True)
                if has(group.name, text, key)
            ]  # fmt: skip
            if len(holding) == len(group.choices):
                continue
            listed = any(isinstance(choice, str) and choice.startswith("[") for choice in group.choices)
            found.append(Rule(group.name, "in", (key.split(".")[1],) if listed else tuple(c for c, _ in holding)))
        return tuple(found)

    conditional = [replace(p, when=(*under(p.name), *p.when)) for p in parameters]
    return conditional, [(line, under(key)) for line, key in lines]


def _plain(value: Any) -> str:
    return "null" if value is None else str(value)
