"""The step is found by its name, removes the share that it is asked for, and the zeros last."""

from types import SimpleNamespace

import pytest
import torch
from bigopt_my_plugin import MyPlugin
from torch import nn

from bigopt import RequestError
from bigopt.registry import build, get
from bigopt.vocabulary.settings import StepOptions


@pytest.fixture
def run() -> SimpleNamespace:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(10, 10, bias=False), nn.ReLU(), nn.Linear(10, 10, bias=False))
    return SimpleNamespace(model=model, options=StepOptions())


def zeros(layer: nn.Linear) -> int:
    return int(layer.weight.eq(0).sum())


def test_it_is_found() -> None:
    plugin = get("compression", "my_plugin")
    assert plugin.error is None
    assert plugin.facts["needs"] == "trainable"
    assert build("compression", "my_plugin", {"ratio": 0.25}).strength() == 0.25


def test_strengths_add_up(run: SimpleNamespace) -> None:
    part = MyPlugin()
    part.apply(run, 0.5)
    assert [zeros(run.model[0]), zeros(run.model[2])] == [50, 50]
    part.apply(run, 0.5, only="0")
    assert [zeros(run.model[0]), zeros(run.model[2])] == [75, 50]


def test_the_smallest_weights_go(run: SimpleNamespace) -> None:
    before = run.model[0].weight.detach().clone()
    MyPlugin().apply(run, 0.3)
    after = run.model[0].weight.detach()
    assert before[after == 0].abs().max() < before[after != 0].abs().min()
    assert torch.equal(before[after != 0], after[after != 0])


def test_zeros_last_through_training_and_finish(run: SimpleNamespace) -> None:
    part = MyPlugin()
    part.apply(run, 0.5)
    optimizer = torch.optim.Adam(run.model.parameters(), lr=0.1)
    run.model(torch.randn(8, 10)).square().sum().backward()
    optimizer.step()
    assert zeros(run.model[0]) == 50
    x = torch.randn(4, 10)
    expected = run.model(x)
    part.finish(run, None)
    assert zeros(run.model[0]) == 50 and list(run.model.state_dict()) == ["0.weight", "2.weight"]
    assert torch.equal(run.model(x), expected)


def test_ignored_layers_are_left_alone(run: SimpleNamespace) -> None:
    run.options = StepOptions(ignore=("0",))
    MyPlugin().apply(run, 0.5)
    assert [zeros(run.model[0]), zeros(run.model[2])] == [0, 50]


def test_wrong_arguments_are_refused() -> None:
    with pytest.raises(RequestError, match="ratio: got 1.5"):
        MyPlugin(ratio=1.5)
