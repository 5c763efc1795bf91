"""The model is found by its name, and takes its shape from the data."""

import pytest
import torch
from bigopt_my_plugin import MyPlugin

from bigopt import RequestError
from bigopt.registry import build, get


def test_it_is_found() -> None:
    plugin = get("models", "my_plugin")
    assert plugin.error is None
    assert [argument.name for argument in plugin.arguments or ()] == ["in_features", "num_classes", "hidden"]


def test_it_takes_its_shape_from_the_data() -> None:
    model = build("models", "my_plugin", {"hidden": 5}, {"in_features": 12, "num_classes": 3})
    assert model(torch.zeros(2, 3, 4)).shape == (2, 3)
    assert sum(parameter.numel() for parameter in model.parameters()) == 12 * 5 + 5 + 5 * 3 + 3


def test_wrong_arguments_are_refused() -> None:
    with pytest.raises(RequestError, match="hidden: got 0"):
        MyPlugin(in_features=4, num_classes=2, hidden=0)
