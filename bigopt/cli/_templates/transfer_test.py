"""The strategy is found by its name; its loss has the formula's value and reaches the weights."""

from types import SimpleNamespace

import pytest
import torch
from bigopt_my_plugin import MyPlugin
from torch import nn

from bigopt import Part, RequestError
from bigopt.registry import build, get


@pytest.fixture
def run() -> SimpleNamespace:
    return SimpleNamespace(model=nn.Linear(3, 2), baseline=None)


def test_it_is_found() -> None:
    assert get("transfer", "my_plugin").error is None
    assert isinstance(build("transfer", "my_plugin", {"alpha": 1}), Part)


def test_the_loss_is_the_formula_and_trains_the_weights(run: SimpleNamespace) -> None:
    part = MyPlugin(alpha=0.5)
    part.prepare(run, None)
    assert part.loss(run, None, None)["l2_sp"].item() == 0.0
    with torch.no_grad():
        run.model.weight += 2.0
    loss = part.loss(run, None, None)["l2_sp"]
    assert loss.item() == pytest.approx(0.5 / 2 * 6 * 2.0**2)
    loss.backward()
    assert torch.allclose(run.model.weight.grad, torch.full((2, 3), 0.5 * 2.0))


def test_the_kept_weights_are_not_trained(run: SimpleNamespace) -> None:
    part = MyPlugin()
    part.prepare(run, None)
    assert list(part.modules(run)["start"].parameters()) == []


def test_a_compressed_model_is_left_alone(run: SimpleNamespace) -> None:
    part = MyPlugin()
    part.prepare(run, None)
    run.baseline = run.model
    assert part.loss(run, None, None) == {}


def test_wrong_arguments_are_refused() -> None:
    with pytest.raises(RequestError, match="alpha: got -1"):
        MyPlugin(alpha=-1)
