"""Every way in which settings can be wrong, and every conversion that loses nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any, Literal

import pytest

from bigopt.registry import Argument, Computed, Plugin, bind
from bigopt.registry.annotations import parse
from bigopt.vocabulary.errors import RequestError
from bigopt.vocabulary.settings import Optimizer, Recover, StepOptions, Trainer


@dataclass(frozen=True)
class Inner:
    size: int
    name: str = "n"


@dataclass(frozen=True)
class Outer:
    inner: Inner
    many: list[Inner] = field(default_factory=list)
    named: dict[str, Inner] = field(default_factory=dict)
    maybe: Inner | None = None


class Colour(Enum):
    RED = "r"
    BLUE = "b"


def plugin(**annotations: str) -> Plugin:
    """A plugin with required arguments of these types; nothing of it exists but its description."""
    arguments = [Argument(name, annotation, None, True) for name, annotation in annotations.items()]
    return Plugin("compression", "p", "nowhere:P", arguments=arguments)


def problems(schema: Any, settings: Mapping[str, Any], path: str = "at") -> list[str]:
    with pytest.raises(RequestError) as caught:
        bind(schema, settings, path)
    return list(caught.value.problems)


@pytest.mark.parametrize(
    ("annotation", "value", "result"),
    [
        ("int", 3, 3),
        ("float", 3, 3.0),
        ("float", 2.5, 2.5),
        ("float | None", 3, 3.0),
        ("int | float", 3, 3),
        ("float | int", 3, 3),
        ("bool | int", True, True),
        ("str", "3", "3"),
        ("None", None, None),
        ("Optional[int]", None, None),
        ("Any", object, object),
        ("Unheard[of]", "x", "x"),
        ("Unheard | int", "x", "x"),
        ("Callable[[int], int]", {"_target_": "x"}, {"_target_": "x"}),
        ("", 3, 3),
        ("not valid (", 3, 3),
        ("list[int]", (1, 2), [1, 2]),
        ("list", [1, "a"], [1, "a"]),
        ("tuple[float, ...]", [1, 2.5], (1.0, 2.5)),
        ("tuple[int, str]", [1, "a"], (1, "a")),
        ("tuple", [1], (1,)),
        ("Sequence[float]", [1], [1.0]),
        ("Sequence[float]", (1,), (1.0,)),
        ("set[int]", [1, 1], {1}),
        ("frozenset[str]", ["a"], frozenset("a")),
        ("dict[str, float]", {"a": 1}, {"a": 1.0}),
        ("Mapping[str, tuple[int, ...]]", {"a": [1]}, {"a": (1,)}),
        ("dict", {"a": [1]}, {"a": [1]}),
        ("str | Mapping[str, Any] | None", {"name": "x"}, {"name": "x"}),
        ("int | Literal['auto']", "auto", "auto"),
        ("Literal[1, 2]", 2, 2),
        ("Literal['a', None]", None, None),
        ("typing.Literal['a']", "a", "a"),
        ("list[int] | int", 4, 4),
        ("Path", "a/b", Path("a/b")),
        ("Path | None", "a", Path("a")),
        ("Annotated[float, 'unit']", 1, 1.0),
        ("'int'", 1, 1),
    ],
)
def test_accepted(annotation: str, value: Any, result: Any) -> None:
    bound = bind(plugin(x=annotation), {"x": value}, "at")["x"]
    assert bound == result and type(bound) is type(result)


@pytest.mark.parametrize(
    ("annotation", "value", "line"),
    [
        ("int", "x", "at.x: got 'x' (str), expected int"),
        ("int", "3", "at.x: got '3' (str), expected int"),
        ("int", True, "at.x: got True (bool), expected int"),
        ("int", 3.0, "at.x: got 3.0 (float), expected int"),
        ("int", None, "at.x: got null, expected int"),
        ("float", "0.5", "at.x: got '0.5' (str), expected float"),
        ("float", False, "at.x: got False (bool), expected float"),
        ("bool", 1, "at.x: got 1 (int), expected bool"),
        ("bool", "true", "at.x: got 'true' (str), expected bool"),
        ("str", 5, "at.x: got 5 (int), expected str"),
        ("None", 5, "at.x: got 5 (int), expected null"),
        ("int | None", "x", "at.x: got 'x' (str), expected int or null"),
        ("None | int", "x", "at.x: got 'x' (str), expected int or null"),
        ("int | Literal['auto']", "atuo", "at.x: got 'atuo' (str), expected int or auto; did you mean auto?"),
        (
            "Literal['l1', 'taylor']",
            "tailor",
            "at.x: got 'tailor' (str), expected one of l1, taylor; did you mean taylor?",
        ),
        ("Literal[1, 2]", True, "at.x: got True (bool), expected one of 1, 2"),
        ("Literal[1, 2]", 1.0, "at.x: got 1.0 (float), expected one of 1, 2"),
        ("Literal[8]", 4, "at.x: got 4 (int), expected 8"),
        ("list[int]", "abc", "at.x: got 'abc' (str), expected a list of int"),
        ("list[int]", 3, "at.x: got 3 (int), expected a list of int"),
        ("list[int]", ["a"], "at.x[0]: got 'a' (str), expected int"),
        ("tuple[int, int]", [1], "at.x: got [1] (list), expected a list of 2: int, int; it has 1"),
        ("tuple[int, str]", [1, 2], "at.x[1]: got 2 (int), expected str"),
        ("Sequence[str]", {"a": 1}, "at.x: got {'a': 1} (dict), expected a list of str"),
        ("dict[str, int]", [1], "at.x: got [1] (list), expected a mapping"),
        ("dict[str, int]", {"a": "b"}, "at.x.a: got 'b' (str), expected int"),
        ("dict[str, list[int]]", {"a": [1, None]}, "at.x.a[1]: got null, expected int"),
        ("Mapping[str, int] | None", {"a": "b"}, "at.x.a: got 'b' (str), expected int"),
        ("list[int] | None", [1, "b"], "at.x[1]: got 'b' (str), expected int"),
        ("Path", 3, "at.x: got 3 (int), expected a path"),
        ("str", "y" * 500, None),
    ],
)
def test_refused(annotation: str, value: Any, line: str | None) -> None:
    if line is None:
        assert len(problems(plugin(x="int"), {"x": value})[0]) < 120
        return
    assert problems(plugin(x=annotation), {"x": value}) == [line]


def test_everything_wrong_is_told_at_once() -> None:
    settings = {"ratoi": 1, "ratio": "a", "criterion": "l3", "depth": [1, "b"]}
    found = problems(
        plugin(ratio="float", criterion="Literal['l1', 'l2']", depth="list[int]", needed="int | None"),
        settings,
        "compression.p",
    )
    assert found == [
        "compression.p.ratoi: unknown, expected one of ratio, criterion, depth, needed; did you mean ratio?",
        "compression.p.ratio: got 'a' (str), expected float",
        "compression.p.criterion: got 'l3' (str), expected one of l1, l2",
        "compression.p.depth[1]: got 'b' (str), expected int",
        "compression.p.needed: missing, expected int or null",
    ]


def test_a_plugin_without_arguments_takes_none() -> None:
    assert problems(plugin(), {"a": 1}) == ["at.a: unknown, expected no arguments"]


def test_at_the_root_the_key_stands_alone() -> None:
    assert problems(plugin(x="int"), {"x": "a", "y": 1}, "") == [
        "x: got 'a' (str), expected int",
        "y: unknown, expected one of x",
    ]


def test_settings_are_not_changed_and_defaults_not_added() -> None:
    given = {"depth": [1, 2]}
    assert bind(plugin(depth="tuple[int, ...]"), given, "") == {"depth": (1, 2)}
    assert given == {"depth": [1, 2]}
    assert bind(Trainer, {}, "trainer") == {}


def test_what_a_run_fills_in_may_be_missing_or_null() -> None:
    model = Plugin(
        "models", "m", "a:b", arguments=[Argument("num_classes", "int", None, True), Argument("w", "int", 1)]
    )
    assert bind(model, {}, "model") == {}
    assert bind(model, {"num_classes": None, "w": 2}, "model") == {"w": 2}
    assert problems(model, {"num_classes": "a"}, "model") == ["model.num_classes: got 'a' (str), expected int"]
    with pytest.raises(RequestError, match=r"model\.num_classes: missing, expected int"):
        bind(model, {}, "model", later=())


def test_null_for_a_default_that_only_code_knows_leaves_it_out() -> None:
    arguments = [
        Argument("a", "float", Computed("inf")),
        Argument("b", "float | None", Computed("x")),
        Argument("c", "int", None),
    ]
    made = Plugin("recipe", "r", "a:b", arguments=arguments)
    assert bind(made, {"a": None, "b": None, "c": None}, "") == {"b": None, "c": None}


def test_dataclasses_nest() -> None:
    bound = bind(StepOptions, {"recover": {"epochs": 3, "lr": 1}, "ignore": ["a"], "max_drop": 1}, "compression.x")
    assert bound == {"recover": Recover(epochs=3, lr=1.0), "ignore": ("a",), "max_drop": 1.0}
    assert StepOptions(**bound).recover.lr == 1.0
    assert bind(StepOptions, {"recover": Recover(epochs=1)}, "")["recover"] == Recover(epochs=1)
    bound = bind(
        Outer, {"inner": {"size": 1}, "many": [{"size": 2}], "named": {"k": {"size": 3}}, "maybe": {"size": 4}}, "o"
    )
    assert bound == {"inner": Inner(1), "many": [Inner(2)], "named": {"k": Inner(3)}, "maybe": Inner(4)}


def test_problems_inside_dataclasses_have_their_full_place() -> None:
    settings = {"inner": {"siez": 1}, "many": [{"size": "a"}], "named": {"k": 3}, "maybe": {"size": 1.5}}
    assert problems(Outer, settings, "o") == [
        "o.inner.siez: unknown, expected one of size, name; did you mean size?",
        "o.inner.size: missing, expected int",
        "o.many[0].size: got 'a' (str), expected int",
        "o.named.k: got 3 (int), expected a mapping",
        "o.maybe.size: got 1.5 (float), expected int",
    ]
    assert problems(Optimizer, {"betas": [0.9, "x"], "name": "adamm"}, "optimizer") == [
        "optimizer.betas[1]: got 'x' (str), expected float",
        "optimizer.name: got 'adamm' (str), expected one of adamw, adam, nadam, radam, sgd, rmsprop, adagrad; "
        "did you mean adam or radam or nadam?",
    ]


def test_callables_with_real_annotations() -> None:
    def function(
        a: int, b: Literal["x"] = "x", *, c: Sequence[float] = (), d: Colour = Colour.RED, **more: Any
    ) -> None: ...

    assert bind(function, {"a": 1, "c": [1], "d": "BLUE", "z": 0}, "") == {"a": 1, "c": [1.0], "d": Colour.BLUE, "z": 0}
    assert problems(function, {"b": "y", "d": "GREEN"}) == [
        "at.b: got 'y' (str), expected x",
        "at.d: got 'GREEN' (str), expected one of RED, BLUE",
        "at.a: missing, expected int",
    ]

    class Thing:
        def __init__(self, inner: Inner, by: Callable[[int], int] = abs) -> None: ...

    assert bind(Thing, {"inner": {"size": 1}, "by": "abs"}, "") == {"inner": Inner(1), "by": "abs"}


def test_annotations_that_are_objects() -> None:
    def function(a, b) -> None: ...  # type: ignore[no-untyped-def]

    function.__annotations__ = {"a": Inner | None, "b": dict[str, Colour]}
    assert bind(function, {"a": {"size": 2}, "b": {"k": "r"}}, "") == {"a": Inner(2), "b": {"k": Colour.RED}}


def test_parsing_runs_nothing() -> None:
    for text in (
        "__import__('os').system('x')",
        "Literal[print()]",
        "list[open('x')]",
        "[].append",
        "lambda: 0",
        "x" * 99999,
    ):
        assert parse(text) in (Any, list[Any])
