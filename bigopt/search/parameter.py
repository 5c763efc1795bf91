"""One searched parameter: its values, how Optuna sees them, and what the command line of a trial says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from bigopt.search.conditions import Rule
from bigopt.vocabulary.errors import RequestError

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

Kind = Literal["float", "int", "choice"]


@dataclass(frozen=True)
class Parameter:
    """A parameter and its values.

    Attributes:
        name: configuration key, or config group.
        kind: floats, whole numbers, or choices.
        low: least value of a number.
        high: largest value of a number, included.
        step: distance between two values; None for none (float).
        log: whether the logarithm is drawn uniformly.
        choices: values as Optuna keeps them: None, bool, int, float, str.
        texts: the same as the command line writes them.
        key: the name with the prefix (``+``, ``++``) of its override.
        when: all of these must hold, or the parameter is left out of the trial.
    """

    name: str
    kind: Kind
    low: float = 0.0
    high: float = 0.0
    step: float | None = None
    log: bool = False
    choices: tuple[Any, ...] = ()
    texts: tuple[str, ...] = ()
    key: str = ""
    when: tuple[Rule, ...] = field(default=())

    def distribution(self) -> BaseDistribution:
        """The values as Optuna's distribution."""
        from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

        if self.kind == "choice":
            return CategoricalDistribution(self.choices)
        if self.kind == "int":
            return IntDistribution(int(self.low), int(self.high), log=self.log, step=int(self.step or 1))
        return FloatDistribution(self.low, self.high, log=self.log, step=self.step)

    def line(self, value: Any) -> str:
        """The override that gives a trial this value."""
        return f"{self.key or self.name}={self.text(value)}"

    def text(self, value: Any) -> str:
        """The value as the command line writes it."""
        return self.texts[self.index(value)] if self.kind == "choice" else repr(value)

    def index(self, value: Any) -> int:
        """Position of a choice; 1, 1.0 and True are different ones."""
        for index, choice in enumerate(self.choices):
            if choice == value and type(choice) is type(value):
                return index
        return self.choices.index(value)

    def meaning(self, value: Any) -> Any:
        """The value as conditions see it: a list of names for a text such as ``[a,b]``."""
        return _listed(value) if isinstance(value, str) and self.kind == "choice" else value

    def accepts(self, value: Any) -> Any:
        """A value given by hand, in Optuna's form.

        Raises:
            RequestError: it is none of the parameter's values.
        """
        from optuna.distributions import CategoricalDistribution

        if self.kind == "choice":
            text = "[" + ",".join(map(str, value)) + "]" if isinstance(value, list | tuple) else value
            for choice, written in zip(self.choices, self.texts, strict=True):
                if (choice == text and isinstance(choice, bool) == isinstance(text, bool)) or written == text:
                    return choice
            raise RequestError(f"{self.name}: got {value!r}, expected one of {', '.join(self.texts)}")
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise RequestError(f"{self.name}: got {value!r}, expected a number in {self}")
        distribution = self.distribution()
        assert not isinstance(distribution, CategoricalDistribution)
        number = int(value) if self.kind == "int" and float(value).is_integer() else float(value)
        if (self.kind == "int" and isinstance(number, float)) or not distribution._contains(number):
            raise RequestError(f"{self.name}: got {value!r}, expected a value of {self}")
        return number

    def corner(self, last: bool) -> Any:
        """The least or first value, or the largest or last."""
        if self.kind == "choice":
            return self.choices[-1 if last else 0]
        value = self.high if last else self.low
        return int(value) if self.kind == "int" else value

    def __str__(self) -> str:
        """The values as the space syntax writes them."""
        if self.kind == "choice":
            return f"choice({','.join(self.texts)})"
        kind = int if self.kind == "int" else float
        low, high = kind(self.low), kind(self.high)
        if self.step is not None and not (self.kind == "int" and self.step == 1):
            text = f"range({low!r}, {kind(self.high + self.step)!r}, {kind(self.step)!r})"
        else:
            text = f"int(interval({low!r}, {high!r}))" if self.kind == "int" else f"interval({low!r}, {high!r})"
        return f"tag(log, {text})" if self.log else text

    def described(self) -> str:
        """The values with the conditions, for comparing two spaces."""
        return f"{self}{' when ' + ' and '.join(map(str, self.when)) if self.when else ''}"


def of_choices(name: str, values: Sequence[tuple[Any, str]], key: str = "") -> Parameter:
    """A parameter of choices, each a value as Optuna keeps it with its text.

    Raises:
        RequestError: there are none, or one comes twice.
    """
    if not values:
        raise RequestError(f"{name}: got an empty choice, expected at least one value")
    texts = [text for _, text in values]
    twice = sorted({text for text in texts if texts.count(text) > 1})
    if twice:
        raise RequestError(f"{name}: got {', '.join(twice)} twice in choice({','.join(texts)})")
    return Parameter(name, "choice", choices=tuple(value for value, _ in values), texts=tuple(texts), key=key)


def of_numbers(
    name: str, low: float, high: float, *, whole: bool, step: float | None = None, log: bool = False, key: str = ""
) -> Parameter:
    """A parameter of numbers.

    Args:
        name: configuration key.
        low: least value.
        high: largest value, included.
        whole: whether only whole numbers count.
        step: distance between two values.
        log: whether the logarithm is drawn uniformly.
        key: the name with its override's prefix.

    Raises:
        RequestError: the bounds or the logarithm make no sense.
    """
    if not (abs(low) < float("inf") and abs(high) < float("inf")):
        raise RequestError(f"{name}: got the bounds {low:g} and {high:g}, expected finite numbers")
    if low > high:
        raise RequestError(f"{name}: got low {low:g} above high {high:g}, expected low <= high")
    if log and low <= 0:
        raise RequestError(f"{name}: got log with the lower bound {low:g}, expected a lower bound above 0")
    if log and step is not None and not (whole and step == 1):
        raise RequestError(f"{name}: got log with the step {step:g}, expected log without a step")
    return Parameter(name, "int" if whole else "float", low, high, step, log, key=key)


def _listed(text: str) -> Any:
    if not (text.startswith("[") and text.endswith("]")):
        return text
    return [part.strip().strip("'\"") for part in text[1:-1].split(",") if part.strip()]
