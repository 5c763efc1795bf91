"""Going on with a run: only run control may change."""

from __future__ import annotations

import pytest

from bigopt.config import check, resumed
from bigopt.vocabulary.errors import RequestError


def resolved(composed, *overrides):
    return check(composed(*overrides), composed=True).resolved


@pytest.fixture
def resume(composed):
    def run(before, after):
        return resumed(resolved(composed, *before), resolved(composed, *after), resolved(composed), after)

    return run


def test_nothing_said_takes_the_saved_configuration(resume):
    result = resume(["model=vgg", "trainer.max_epochs=3", "compression=[channel_pruning]"], [])
    assert result["model"]["name"] == "vgg"
    assert result["trainer"]["max_epochs"] == 3
    assert list(result["compression"]) == ["channel_pruning"]


def test_the_same_command_goes_on(resume):
    lines = ["model=vgg", "model.width=0.5", "compression=[channel_pruning,quantization]", "optimizer=sgd"]
    assert resume(lines, lines)["model"]["width"] == 0.5


def test_naming_the_model_alone_does_not_contradict_its_arguments(resume):
    assert resume(["model=resnet", "model.width=64"], ["model=resnet"])["model"]["width"] == 64


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        (["trainer.max_epochs=3"], ["trainer.max_epochs=5"], ["trainer.max_epochs: the run has"]),
        (["trainer.max_epochs=3"], ["trainer.max_epochs=20"], ["trainer.max_epochs: the run has"]),
        (["model=vgg"], ["model=mlp"], ["model.name: the run has"]),
        (["model=vgg"], ["model=resnet"], ["model.name: the run has"]),
        ([], ["seed=1", "optimizer.lr=0.5"], ["optimizer.lr: the run has", "seed: the run has"]),
        (
            ["compression=[channel_pruning,quantization]"],
            ["compression=[channel_pruning]"],
            ["compression: the run has"],
        ),
        (["compression=[channel_pruning]"], ["compression=[]"], ["compression: the run has"]),
        ([], ["optimizer=sgd"], ["optimizer.name: the run has"]),
    ],
)
def test_a_changed_setting_is_refused_with_the_difference(resume, before, after, expected):
    with pytest.raises(RequestError) as caught:
        resume(before, after)
    problems = sorted(caught.value.problems)
    assert len(problems) == len(expected)
    for problem, start in zip(problems, expected, strict=True):
        assert problem.startswith(start)


def test_run_control_may_change(resume):
    result = resume(["model=vgg"], ["tracking=none", "cache=off", "budget.max_bytes=5", "trainer.workers=7"])
    assert result["tracking"]["name"] == "none"
    assert result["cache"] == "off"
    assert result["budget"]["max_bytes"] == 5
    assert result["trainer"]["workers"] == 7
    assert result["model"]["name"] == "vgg"
