"""Modules that steps leave alone, by names that exist."""

import pytest
from torch import nn

from bigopt.pipeline.names import check_ignored
from bigopt.vocabulary.errors import RequestError
from bigopt.vocabulary.network import Network
from bigopt.vocabulary.settings import StepOptions


def model():
    return Network(nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(2, 2)))


@pytest.mark.parametrize("pattern", ["0", "net.0", "*.2", "?", "0.0", "net.2.second"])
def test_names_of_modules_and_of_what_a_layer_may_become_are_taken(pattern):
    check_ignored(model(), [("one", StepOptions(ignore=(pattern,)))])


def test_every_other_name_is_refused_with_its_step():
    steps = [("one", StepOptions(ignore=("conv", "0"))), ("two", StepOptions(ignore=("3",))), ("three", StepOptions())]
    with pytest.raises(RequestError) as refused:
        check_ignored(model(), steps)
    lines = [line.partition(" fits")[0] for line in str(refused.value).splitlines()]
    assert lines == ["compression.one.ignore: 'conv'", "compression.two.ignore: '3'"]
