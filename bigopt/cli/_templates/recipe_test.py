"""The recipe is found by its name and does to a batch what it says."""

import pytest
import torch
from bigopt_my_plugin import MyPlugin

from bigopt import Batch, Part, RequestError
from bigopt.registry import build, get


def batch(x: torch.Tensor) -> Batch:
    return Batch(x=x, y=torch.zeros(len(x), dtype=torch.int64), index=torch.arange(len(x)))


def test_it_is_found() -> None:
    assert get("recipe", "my_plugin").error is None
    assert isinstance(build("recipe", "my_plugin", {"noise": 1}), Part)


def test_the_noise_has_its_size() -> None:
    torch.manual_seed(0)
    clean = batch(torch.ones(1000, 20))
    noisy = MyPlugin(noise=0.5).batch(None, clean)
    assert (noisy.x - 1).std().item() == pytest.approx(0.5, rel=0.05)
    assert torch.equal(noisy.y, clean.y) and torch.equal(clean.x, torch.ones(1000, 20))


def test_what_cannot_be_noisy_is_left_alone() -> None:
    tokens = batch(torch.ones(2, 3, dtype=torch.int64))
    assert MyPlugin().batch(None, tokens) is tokens


def test_wrong_arguments_are_refused() -> None:
    with pytest.raises(RequestError, match="noise: got -1"):
        MyPlugin(noise=-1)
