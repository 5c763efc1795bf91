"""Conditions, forbidden combinations, pipelines as choices, and points given by hand."""

import pytest

from bigopt.search.conditions import Rule, rules
from bigopt.search.space import Space, belonging, ordered
from bigopt.search.syntax import parameter, parameters, parse
from bigopt.vocabulary.errors import RequestError


def made(*lines):
    return [parameter(parse(line)) for line in lines]


@pytest.mark.parametrize(
    ("given", "value", "holds"),
    [
        ("sgd", "sgd", True),
        ("sgd", "adam", False),
        (["sgd", "adam"], "adam", True),
        ("pruning", ["pruning", "quantization"], True),
        ("pruning", ["quantization"], False),
        ("> 0.5", 0.6, True),
        ("> 0.5", 0.5, False),
        (">= 0.5", 0.5, True),
        ("<= 2", 3, False),
        ("!= sgd", "adam", True),
        ("!= sgd", "sgd", False),
        (True, True, True),
        (1, True, False),
        ("> 1", "text", False),
    ],
    ids=lambda value: str(value),
)
def test_rules(given, value, holds):
    (rule,) = rules({"x": given}, "when")
    assert rule.holds({"x": value}) is holds
    assert not rule.holds({})


def test_wrong_rules_are_refused():
    for given, line in [
        ({}, "when: got {}"),
        ("x", "when: got 'x'"),
        ({"x": []}, "when.x: got an empty list"),
        ({"x": "> much"}, "when.x: got '> much'"),
    ]:
        with pytest.raises(RequestError, match=line):
            rules(given, "when")


def test_parameters_follow_what_their_conditions_name():
    found, _ = parameters(
        {
            "b": {"space": "interval(0,1)", "when": {"a": "x"}},
            "a": "x,y",
            "c": {"space": "1,2", "when": {"b": "> 0.5"}},
        },
        "p",
    )
    space = Space(parameters=ordered(found))
    assert [p.name for p in space.parameters] == ["a", "b", "c"]
    assert space.projected({"a": "x", "b": 0.6, "c": 1}) == {"a": "x", "b": 0.6, "c": 1}
    assert space.projected({"a": "x", "b": 0.4, "c": 1}) == {"a": "x", "b": 0.4}
    assert space.projected({"a": "y", "b": 0.6, "c": 1}) == {"a": "y"}
    circle, _ = parameters({"a": {"space": "1,2", "when": {"b": 1}}, "b": {"space": "1,2", "when": {"a": 1}}}, "p")
    with pytest.raises(RequestError, match="circle"):
        ordered(circle)


def test_a_plugins_settings_count_only_where_it_is_chosen():
    searched = made(
        "compression=[pruning],[quantization],[pruning,quantization]",
        "compression.pruning.ratio=interval(0.1,0.9)",
        "model=mlp,resnet",
        "model.depth=1,2",
        "optimizer.lr=interval(0,1)",
    )
    has = {("model", "resnet", "model.depth")}

    def known(group, text, key):
        return key.split(".")[1] in text if group == "compression" else (group, text, key) in has

    conditional, lines = belonging(
        searched, [("compression.quantization.bits=4", "compression.quantization.bits")], known
    )
    space = Space(parameters=ordered(conditional), fixed=tuple(lines))
    assert space.projected(
        {"compression": "[quantization]", "compression.pruning.ratio": 0.5, "model": "mlp", "model.depth": 2}
    ) == {"compression": "[quantization]", "model": "mlp"}
    assert space.lines({"compression": "[pruning]", "compression.pruning.ratio": 0.5, "model": "mlp"}) == [
        "compression=[pruning]",
        "compression.pruning.ratio=0.5",
        "model=mlp",
    ]
    assert (
        space.lines({"compression": "[pruning,quantization]", "model": "resnet"})[0]
        == "compression.quantization.bits=4"
    )
    corners = space.corners()
    assert {point["compression"] for point in corners} == set(searched[0].choices)
    assert all(("model.depth" in point) == (point["model"] == "resnet") for point in corners)


def test_forbidden_combinations():
    space = Space(
        parameters=ordered(made("optimizer=sgd,adam", "lr=interval(0,1)")),
        forbid=(rules({"optimizer": "sgd", "lr": "> 0.5"}, "forbid"), (Rule("base", "in", (3,)),)),
        known={"base": 2},
    )
    assert space.forbids({"optimizer": "sgd", "lr": 0.6})
    assert not space.forbids({"optimizer": "adam", "lr": 0.6})
    assert not space.forbids({"optimizer": "sgd", "lr": 0.5})
    assert all(not space.forbids(point) for point in space.corners())


def test_points_given_by_hand():
    space = Space(parameters=ordered(made("lr=interval(0,1)", "n=range(1,4)", "c=null,2", "p=[],[a,b]")))
    assert space.checked({"lr": 1, "n": 3, "c": None, "p": ["a", "b"]}, "enqueue") == {
        "lr": 1.0,
        "n": 3,
        "c": None,
        "p": "[a,b]",
    }
    with pytest.raises(RequestError) as caught:
        space.checked({"lr": 2, "n": 2.5, "c": 3, "z": 1}, "enqueue")
    assert caught.value.problems == (
        "enqueue: lr: got 2, expected a value of interval(0.0, 1.0)",
        "enqueue: n: got 2.5, expected a value of int(interval(1, 3))",
        "enqueue: c: got 3, expected one of null, 2",
        "enqueue: z is not searched, expected lr, n, c, p",
    )
