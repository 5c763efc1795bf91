"""Space expressions, as Hydra's override grammar parses them, to parameters."""

from __future__ import annotations

import re
from collections.abc import Mapping
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from bigopt.config._choices import empty_choice, simple_choices
from bigopt.search.conditions import rules
from bigopt.search.parameter import Parameter, of_choices, of_numbers
from bigopt.vocabulary.errors import RequestError

if TYPE_CHECKING:
    from hydra.core.override_parser.types import Override

TAGS = {"log", "int"}
EXPRESSIONS = "interval(…), int(interval(…)), range(…), choice(…), tag(log, …), or values a,b,c"


def parse(line: str, loader: Any = None) -> Override:
    """One override line; ``choice(null,1)`` is taken too, which Hydra's grammar refuses.

    Args:
        line: ``key=expression``.
        loader: Hydra's config loader, for ``glob(…)``.

    Raises:
        RequestError: it is no override.
    """
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    parser = OverridesParser.create(config_loader=loader)
    try:
        return parser.parse_override(line)
    except HydraException as error:
        key, _, value = line.partition("=")
        plain = simple_choices(line)
        if plain is not None:
            try:
                return parser.parse_override(plain)
            except HydraException:
                pass
        empty = empty_choice(line)
        if empty is not None:
            raise RequestError(empty) from None
        raise RequestError(f"{key}: got {value!r}, expected {EXPRESSIONS}") from error


def parameter(override: Override) -> Parameter:
    """The parameter that a sweep override describes.

    Raises:
        RequestError: an empty choice, bounds or a logarithm that make no sense, an unknown tag.
    """
    from hydra.core.override_parser.types import IntervalSweep, RangeSweep

    name, key = override.key_or_group, override.get_key_element()
    value: Any = override.value()
    tags = set(getattr(value, "tags", ()))
    unknown = sorted(tags - TAGS)
    if unknown:
        raise RequestError(f"{name}: got the tag {', '.join(unknown)}, expected {' or '.join(sorted(TAGS))}")
    log = "log" in tags
    if isinstance(value, IntervalSweep):
        low, high = value.start, value.end
        assert low is not None and high is not None
        whole = "int" in tags or (isinstance(low, int) and isinstance(high, int))
        return of_numbers(name, low, high, whole=whole, log=log, key=key)
    if isinstance(value, RangeSweep):
        return _range(name, key, value, log)
    if log:
        raise RequestError(f"{name}: got log with choices, expected it with interval(…) or range(…)")
    return of_choices(name, _choices(override), key)


def fixed_choice(override: Override) -> str | None:
    """``key=value`` for ``key=choice(value)``, which fixes a value where its key is there; None for anything else."""
    if not override.is_choice_sweep():
        return None
    texts = _texts(override)
    return f"{override.get_key_element()}={texts[0]}" if len(texts) == 1 else None


def parameters(given: Mapping[str, Any], path: str, loader: Any = None) -> tuple[list[Parameter], list[str]]:
    """Parameters of a mapping such as ``hydra.sweeper.params``, and the overrides in it that fix a value.

    Args:
        given: expressions by key; a list stands for choices; ``{space: …, when: {…}}`` adds conditions.
        path: where it stands in the configuration, for messages.
        loader: Hydra's config loader.

    Raises:
        RequestError: everything that is wrong with it.
    """
    found: list[Parameter] = []
    fixed: list[str] = []
    problems: list[str] = []
    for key, value in flat(given).items():
        try:
            expression, when = value, ()
            if isinstance(value, Mapping):
                expression, when = _conditional(key, value, path)
            override = parse(f"{key}={_text(expression)}", loader)
            if isinstance(expression, list) and not expression:
                raise RequestError(f"{key}: got an empty choice, expected at least one value")
            if override.is_sweep_override():
                made = parameter(override)
                found.append(Parameter(**{**vars(made), "when": when}))
            elif isinstance(expression, list):
                found.append(Parameter(**{**vars(of_choices(key, [_pair(override)], key)), "when": when}))
            else:
                fixed.append(f"{key}={_text(expression)}")
        except RequestError as error:
            problems += error.problems
    if problems:
        raise RequestError(problems)
    return found, fixed


def flat(given: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings under dotted names; a mapping with ``space`` in it is one parameter."""
    found: dict[str, Any] = {}
    for key, value in given.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping) and "space" not in value:
            found |= flat(value, f"{name}.")
        else:
            found[name] = value
    return found


def _conditional(key: str, value: Mapping[str, Any], path: str) -> tuple[Any, Any]:
    wrong = sorted(set(value) - {"space", "when"})
    if wrong:
        raise RequestError(f"{path}.{key}: got {', '.join(wrong)}, expected space and when")
    return value["space"], rules(value["when"], f"{path}.{key}.when") if "when" in value else ()


def _range(name: str, key: str, sweep: Any, log: bool) -> Parameter:
    """``range`` leaves its stop out, as in Python and under every tuner."""
    start, stop, step = (Decimal(str(value)) for value in (sweep.start, sweep.stop, sweep.step))
    whole = all(isinstance(value, int) for value in (sweep.start, sweep.stop, sweep.step))
    if step == 0:
        raise RequestError(f"{name}: got a range with the step 0, expected another step")
    count = -((start - stop) // step) if (stop - start) % step == 0 else (stop - start) // step + 1
    if (stop - start) / step <= 0:
        raise RequestError(f"{name}: got the empty range({start}, {stop}, {step}), expected low < high")
    last = start + (count - 1) * step
    low, high, width = min(start, last), max(start, last), abs(step)
    if whole:
        return of_numbers(name, int(low), int(high), whole=True, step=int(width), log=log, key=key)
    return of_numbers(name, float(low), float(high), whole=False, step=float(width), log=log, key=key)


def _choices(override: Override) -> list[tuple[Any, str]]:
    value: Any = override.value()
    shuffled = getattr(value, "shuffle", False)
    if shuffled:  # an order of its own in every process would break resuming; the tuner draws anyway
        value.shuffle = False
    return [(_kept(item, text), text) for item, text in zip(_items(override), _texts(override), strict=True)]


def _items(override: Override) -> list[Any]:
    return [type(override)._convert_value(item) for item in override.sweep_iterator()]


def _texts(override: Override) -> list[str]:
    return [str(text) for text in override.sweep_string_iterator()]


def _pair(override: Override) -> tuple[Any, str]:
    text = override.get_value_element_as_str()
    return _kept(override.value(), text), text


def _kept(item: Any, text: str) -> Any:
    return item if item is None or isinstance(item, bool | int | float | str) else text


def _text(value: Any) -> str:
    """A value from YAML in the grammar of overrides; a list stands for choices."""
    if isinstance(value, list | tuple):
        return ",".join(_element(item) for item in value)
    return value if isinstance(value, str) else _element(value)


def _element(value: Any) -> str:
    if isinstance(value, list | tuple):
        return "[" + ",".join(map(_element, value)) + "]"
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{key}:{_element(item)}" for key, item in value.items()) + "}"
    if isinstance(value, str):
        return value if re.fullmatch(r"[\w./:+\-]+", value) else "'" + value.replace("'", "\\'") + "'"
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else repr(value)
