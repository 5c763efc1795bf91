"""Calling a plugin, and what each kind must return."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest
import torch
from fakes import install
from torch import nn

from bigopt.registry import Plugin, build, check_result
from bigopt.vocabulary.data import Data, Schema, TensorSplit
from bigopt.vocabulary.errors import RequestError
from bigopt.vocabulary.part import Part

SPLIT = TensorSplit(torch.zeros(2, 3), torch.zeros(2, dtype=torch.int64))
DATA = Data("d", Schema("classification", "tabular", (3,), 2), SPLIT, SPLIT, None)


def problems(*arguments: Any, **keywords: Any) -> list[str]:
    with pytest.raises(RequestError) as caught:
        build(*arguments, **keywords)
    return list(caught.value.problems)


def test_what_is_unset_comes_from_the_context() -> None:
    context = {"in_channels": 3, "num_classes": 10, "image_size": 32, "in_features": 3072}
    made = build("models", "resnet", {"in_channels": None, "width": 8, "depth": [1]}, context, path="model")
    assert made.stem[0].weight.shape[:2] == (8, 3) and made.head.out_features == 10
    made = build("models", "resnet", {"num_classes": 4, "width": 8, "depth": [1]}, context, path="model")
    assert made.head.out_features == 4


def test_what_the_data_do_not_give_is_told_with_everything_else() -> None:
    assert problems("models", "resnet", {"widht": 8}, {"in_features": 4, "num_classes": 2}, path="model") == [
        "model.widht: unknown, expected one of in_channels, num_classes, depth, width, channels, bottleneck; "
        "did you mean width?",
        "model.in_channels: missing; the data give in_features, num_classes",
    ]


def test_the_plugins_own_checks_get_their_place(plugin: Callable[..., Plugin]) -> None:
    plugin("""
        from bigopt.vocabulary.errors import RequestError
        from bigopt.vocabulary.part import Part
        class Theirs(Part):
            def __init__(self, ratio: float = 0.5, mode: str = ""):
                if mode:
                    raise ValueError("no such mode")
                raise RequestError(["ratio: got 2", "ratio.x: too", "dataset.root: elsewhere", "a sentence"])
        """)
    assert problems("compression", "theirs", {}, path="compression.mine") == [
        "compression.mine.ratio: got 2",
        "compression.mine.ratio.x: too",
        "dataset.root: elsewhere",
        "a sentence",
    ]
    assert problems("compression", "theirs", {"mode": "x"}, path="compression.mine") == [
        "compression.mine: compression plugin 'theirs' refused its arguments: no such mode"
    ]


def test_a_plugins_own_dataclasses_and_enums_are_made(plugin: Callable[..., Plugin]) -> None:
    plugin("""
        from __future__ import annotations
        from dataclasses import dataclass
        from enum import Enum
        from bigopt.vocabulary.part import Part
        class Side(Enum):
            LEFT = "l"
        @dataclass
        class Rule:
            pattern: str
            ratio: float = 0.5
        class Theirs(Part):
            def __init__(self, rules: list[Rule], side: Side | None = None):
                self.rules, self.side = rules, side
        """)
    made = build("compression", "theirs", {"rules": [{"pattern": "a", "ratio": 1}], "side": "LEFT"})
    assert (made.rules[0].pattern, made.rules[0].ratio, made.side.name) == ("a", 1.0, "LEFT")
    assert problems("compression", "theirs", {"rules": [{"patern": "a"}]}, path="p") == [
        "p.rules[0].patern: unknown, expected one of pattern, ratio; did you mean pattern?",
        "p.rules[0].pattern: missing, expected str",
    ]


@pytest.mark.parametrize(
    ("kind", "good"),
    [
        ("models", nn.Linear(1, 1)),
        ("datasets", DATA),
        ("compression", Part()),
        ("transfer", Part()),
        ("recipe", Part()),
        ("tuners", None),
        ("tuners", optuna.samplers.RandomSampler()),
        ("tuners", (optuna.samplers.RandomSampler(), optuna.pruners.MedianPruner())),
        ("tuners", [optuna.samplers.RandomSampler(), None]),
    ],
)
def test_results_in_order(kind: str, good: Any) -> None:
    assert check_result(kind, "x", good) is good


def test_a_tuner_may_bring_a_scheduler() -> None:
    class Scheduler:
        total = None

        def next(self, seen: Any) -> None: ...
        def stopped(self, seen: Any) -> list[int]:
            return []

        def finished(self, seen: Any) -> bool:
            return True

    made = Scheduler()
    assert check_result("tuners", "x", made) is made
    with pytest.raises(RequestError, match="returned the class Scheduler, expected None, a bigopt.Tuner"):
        check_result("tuners", "x", Scheduler)


@pytest.mark.parametrize(
    ("kind", "bad", "line"),
    [
        ("models", None, "models plugin 'x' returned None (NoneType), expected a torch.nn.Module"),
        ("models", nn.Linear, "models plugin 'x' returned the class Linear, expected a torch.nn.Module"),
        ("datasets", (1, 2), "datasets plugin 'x' returned (1, 2) (tuple), expected a bigopt.Data"),
        ("compression", 3, "compression plugin 'x' returned 3 (int), expected a bigopt.Part"),
        ("transfer", Part, "transfer plugin 'x' returned the class Part, expected a bigopt.Part"),
        ("recipe", "p", "recipe plugin 'x' returned 'p' (str), expected a bigopt.Part"),
        ("tuners", (1, 2), None),
        ("tuners", (optuna.samplers.RandomSampler(),), None),
        ("tuners", (optuna.samplers.RandomSampler(), 3), None),
        ("tuners", optuna.pruners.MedianPruner(), None),
    ],
)
def test_results_of_another_kind(kind: str, bad: Any, line: str | None) -> None:
    with pytest.raises(RequestError) as caught:
        check_result(kind, "x", bad)
    if line is not None:
        assert str(caught.value) == line
    assert "expected" in str(caught.value)


def test_build_checks_the_result(site: Path) -> None:
    install(site, "odd", {"models": {"odd": "odd:odd"}}, {"odd.py": "def odd(a: int = 1): return a\n"})
    assert problems("models", "odd", {"a": 7}) == ["models plugin 'odd' returned 7 (int), expected a torch.nn.Module"]
