"""Every documented expression means what it says, and every wrong one gets one line."""

import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from bigopt.search.syntax import parameter, parameters, parse
from bigopt.vocabulary.errors import RequestError

EXPRESSIONS = [
    ("interval(1,8)", FloatDistribution(1.0, 8.0)),
    ("interval(1e-4,1e-1)", FloatDistribution(1e-4, 0.1)),
    ("int(interval(1,8))", IntDistribution(1, 8)),
    ("tag(int,interval(1,8))", IntDistribution(1, 8)),
    ("tag(log,interval(1e-4,1e-1))", FloatDistribution(1e-4, 0.1, log=True)),
    ("tag(log,int(interval(1,100)))", IntDistribution(1, 100, log=True)),
    ("range(1,4)", IntDistribution(1, 3)),
    ("range(4)", IntDistribution(0, 3)),
    ("range(1,10,3)", IntDistribution(1, 7, step=3)),
    ("range(5,1,-1)", IntDistribution(2, 5)),
    ("range(0.1,0.5,0.1)", FloatDistribution(0.1, 0.4, step=0.1)),
    ("range(0.1,0.45,0.1)", FloatDistribution(0.1, 0.4, step=0.1)),
    ("tag(log,range(1,100))", IntDistribution(1, 99, log=True)),
    ("32,64,128", CategoricalDistribution((32, 64, 128))),
    ("choice(a,b)", CategoricalDistribution(("a", "b"))),
    ("choice(null,1)", CategoricalDistribution((None, 1))),
    ("null,1", CategoricalDistribution((None, 1))),
    ("true,false", CategoricalDistribution((True, False))),
    ("sort(3,1,2)", CategoricalDistribution((1, 2, 3))),
    ("shuffle(3,1,2)", CategoricalDistribution((3, 1, 2))),
    ("[a],[b],[a,b]", CategoricalDistribution(("[a]", "[b]", "[a,b]"))),
    ("[],[a]", CategoricalDistribution(("[]", "[a]"))),
    ("{x:1},{x:2}", CategoricalDistribution(("{x:1}", "{x:2}"))),
]


@pytest.mark.parametrize(("text", "expected"), EXPRESSIONS, ids=[text for text, _ in EXPRESSIONS])
def test_expressions(text, expected):
    made = parameter(parse(f"key={text}"))
    assert made.distribution() == expected
    again = parameter(parse(f"key={made}")) if made.kind != "choice" else made
    assert again.distribution() == expected  # what it is described as means the same


WRONG = [
    ("choice()", "key: got an empty choice, expected at least one value"),
    ("interval(3,1)", "key: got low 3 above high 1, expected low <= high"),
    ("tag(log,interval(0,1))", "key: got log with the lower bound 0, expected a lower bound above 0"),
    ("tag(log,range(4))", "key: got log with the lower bound 0, expected a lower bound above 0"),
    ("tag(log,range(1,9,2))", "key: got log with the step 2, expected log without a step"),
    ("range(3,3)", "key: got the empty range(3, 3, 1), expected low < high"),
    ("range(1,5,0)", "key: got a range with the step 0, expected another step"),
    ("tag(foo,interval(1,2))", "key: got the tag foo, expected int or log"),
    ("tag(log,choice(1,2))", "key: got log with choices, expected it with interval(…) or range(…)"),
    ("1,1", "key: got 1 twice in choice(1,1)"),
    ("interval(1)", "key: got 'interval(1)', expected interval(…)"),
]


@pytest.mark.parametrize(("text", "line"), WRONG, ids=[text for text, _ in WRONG])
def test_wrong_expressions(text, line):
    with pytest.raises(RequestError) as caught:
        parameter(parse(f"key={text}"))
    assert str(caught.value).startswith(line)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "value", "line"),
    [
        ("interval(0,1)", 0.25, "key=0.25"),
        ("int(interval(0,9))", 3, "key=3"),
        ("choice(null,1)", None, "key=null"),
        ("true,false", False, "key=False"),
        ("1,true", True, "key=True"),
        ("[a],[a,b]", "[a,b]", "key=[a,b]"),
        ("'x y',z", "x y", "key='x y'"),
    ],
    ids=["float", "int", "null", "bool", "bool-not-one", "list", "quoted"],
)
def test_a_trials_override_gives_the_value_back(text, value, line):
    made = parameter(parse(f"key={text}"))
    assert made.line(value) in (line, line.replace("'x y'", "x\\ y"))
    given = parse(made.line(value)).value()
    assert given == (["a", "b"] if value == "[a,b]" else value)


def test_a_mapping_holds_expressions_lists_conditions_and_fixed_values():
    found, fixed = parameters(
        {
            "optimizer.lr": "tag(log, interval(1e-4, 1e-1))",
            "trainer": {"batch_size": [32, 64]},
            "optimizer.momentum": {"space": "interval(0.5, 0.9)", "when": {"optimizer": ["sgd", "rmsprop"]}},
            "compression": [["a"], ["a", "b"]],
            "seed": 3,
        },
        "hydra.sweeper.params",
    )
    by_name = {parameter.name: parameter for parameter in found}
    assert list(by_name) == ["optimizer.lr", "trainer.batch_size", "optimizer.momentum", "compression"]
    assert by_name["trainer.batch_size"].choices == (32, 64)
    assert by_name["compression"].choices == ("[a]", "[a,b]")
    assert str(by_name["optimizer.momentum"].when[0]) == "optimizer in [sgd, rmsprop]"
    assert fixed == ["seed=3"]


def test_everything_wrong_in_a_mapping_is_said_at_once():
    with pytest.raises(RequestError) as caught:
        parameters(
            {"a": [], "b": "interval(2,1)", "c": {"space": "1,2", "if": {}}, "d": {"space": "1,2", "when": {}}}, "p"
        )
    assert [line.partition(":")[0] for line in caught.value.problems] == ["a", "b", "p.c", "p.d.when"]
