"""The dataset is found by its name; its splits have their sizes and repeat."""

import pytest
import torch
from bigopt_my_plugin import my_function

from bigopt import RequestError
from bigopt.registry import build, get


def test_it_is_found() -> None:
    plugin = get("datasets", "my_plugin")
    assert plugin.error is None
    assert "seed" in [argument.name for argument in plugin.arguments or ()]


def test_its_splits() -> None:
    data = build("datasets", "my_plugin", {"samples": 100, "val": 0.2, "test": 0.3}, {"seed": 1})
    assert (len(data.train), len(data.val), len(data.test)) == (50, 20, 30)
    assert data.train.take(torch.arange(3)).shape == (3, 2)
    assert data.fingerprint == my_function(samples=100, val=0.2, test=0.3, seed=1).fingerprint
    assert data.fingerprint != my_function(samples=100, val=0.2, test=0.3, seed=2).fingerprint


def test_wrong_arguments_are_refused() -> None:
    with pytest.raises(RequestError, match="samples: got 3"):
        my_function(samples=3)
