"""Channel pruning ranks as its criteria say and removes what it ranks lowest."""

import sys

import pytest
import torch
from torch import nn
from train.train_fakes import data, make_run

from bigopt.pipeline.notes import Collected
from bigopt.vocabulary.errors import RequestError
from bigopt.vocabulary.network import Network
from bigopt_plugins.compression.channel_pruning import ChannelPruning


def net(width: int = 8) -> Network:
    torch.manual_seed(0)
    return Network(
        nn.Sequential(
            nn.Conv2d(1, width, 3, padding=1),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Conv2d(width, 2 * width, 3, padding=1),
            nn.BatchNorm2d(2 * width),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(2 * width, 3),
        )
    )


def pruned(tmp_path, **arguments):
    run = make_run(tmp_path, net(), data(image=True))
    ChannelPruning(**arguments).apply(run, arguments.get("ratio", 0.5))
    return run.model


def test_l1_keeps_the_channels_whose_group_has_the_largest_norms(tmp_path):
    run = make_run(tmp_path, net(), data(image=True))
    with torch.no_grad():
        for channel in (1, 4, 6):
            run.model.net[0].weight[channel] *= 100
    ChannelPruning(ratio=5 / 8, criterion="l1").apply(run, 5 / 8)
    assert run.model.net[0].out_channels == 3
    assert run.model.changes[0] == {"op": "prune", "layer": "net.0", "channels": [0, 2, 3, 5, 7]}


def test_bn_scale_reads_the_scales(tmp_path):
    run = make_run(tmp_path, net(), data(image=True))
    with torch.no_grad():
        run.model.net[1].weight.copy_(torch.tensor([0.1, 5, 5, 0.1, 5, 0.1, 5, 0.1]))
    ChannelPruning(criterion="bn_scale").apply(run, 0.5)
    assert run.model.changes[0]["channels"] == [0, 3, 5, 7]


OWN = """
import torch

def by_bias(group, model):
    assert not model.training
    return model.get_submodule(group.name).bias

def one(group):
    return torch.zeros(group.units)

def few(group, model):
    return torch.zeros(3)

def endless(group, model):
    return torch.full((group.units,), float("nan"))

def broken(group, model):
    raise KeyError("no such thing")

number = 3
"""


@pytest.fixture
def own_code(tmp_path, monkeypatch):
    """A module of the user's own in the working directory, which no other test has imported."""
    (tmp_path / "my_criteria.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    yield "my_criteria"
    sys.modules.pop("my_criteria", None)


@pytest.mark.parametrize("separator", [".", ":"], ids=["dot", "colon"])
def test_a_function_of_the_users_own_ranks_and_the_report_says_so(tmp_path, own_code, separator):
    run = make_run(tmp_path, net(), data(image=True))
    run.report = Collected()
    with torch.no_grad():
        run.model.net[0].bias.copy_(torch.tensor([7.0, 1, 6, 2, 5, 3, 8, 4]))
    part = ChannelPruning(criterion=f"{own_code}{separator}by_bias")
    part.prepare(run, lambda *a, **k: None)
    part.apply(run, 0.5)
    assert run.model.changes[0] == {"op": "prune", "layer": "net.0", "channels": [1, 3, 5, 7]}
    assert any("my_criteria" in note and "imported and run" in note for note in run.report.notes)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("my_criteria.missing", "cannot import my_criteria.missing: AttributeError"),
        ("no_such_module.function", "cannot import no_such_module.function: ModuleNotFoundError"),
        ("my_criteria.one", r"should be a function \(group, model\)"),
        ("my_criteria.number", r"should be a function \(group, model\)"),
        ("my-criteria.one", "expected package.module.function"),
    ],
)
def test_a_criterion_that_cannot_be_used_is_one_line(own_code, name, message):
    with pytest.raises(RequestError, match=message) as caught:
        ChannelPruning(criterion=name)
    assert len(caught.value.problems) == 1 and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("few", r"got shape \[3\] for net.0, expected 8 finite scores"),
        ("endless", "got values that are not finite for net.0"),
        ("broken", "fails at net.0: KeyError: 'no such thing'"),
    ],
)
def test_scores_that_cannot_be_used_are_named(tmp_path, own_code, name, message):
    run = make_run(tmp_path, net(), data(image=True))
    with pytest.raises(RequestError, match=message):
        ChannelPruning(criterion=f"{own_code}.{name}").apply(run, 0.5)
    assert run.model.changes == []


@pytest.mark.parametrize("criterion", ["random", "l1", "l2", "bn_scale", "fpgm", "lamp", "taylor", "hessian"])
def test_every_criterion_removes_the_ratio_and_repeats(tmp_path, criterion):
    first, second = (pruned(tmp_path, criterion=criterion, ratio=0.5, samples=8) for _ in range(2))
    assert (first.net[0].out_channels, first.net[3].out_channels) == (4, 8)
    assert first.net[8].in_features == 8
    assert first.changes == second.changes


def test_global_ranking_takes_more_from_the_weaker_layer(tmp_path):
    run = make_run(tmp_path, net(), data(image=True))
    with torch.no_grad():
        run.model.net[0].weight[:7] *= 1e-3
        run.model.net[1].weight[:7] *= 1e-3
        run.model.net[3].weight[:, :7] *= 1e-3
    ChannelPruning(ranking="global").apply(run, 0.25)
    assert run.model.net[0].out_channels == 2
    assert run.model.net[3].out_channels == 16


def test_rounding_up_to_a_multiple_and_a_least_number(tmp_path):
    assert pruned(tmp_path, ratio=0.6, round_to=4).net[0].out_channels == 4
    assert pruned(tmp_path, ratio=0.9, min_channels=3).net[0].out_channels == 3


def test_only_one_layer_for_a_scan_and_the_rest_stays(tmp_path):
    run = make_run(tmp_path, net(), data(image=True))
    part = ChannelPruning()
    assert part.layers(run) == ["net.0", "net.3"]
    part.apply(run, 0.5, only="net.3")
    assert (run.model.net[0].out_channels, run.model.net[3].out_channels) == (8, 8)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [({"ratio": 1.0}, "ratio: got 1.0"), ({"criterion": "l3"}, "criterion: got 'l3'"), ({"round_to": 0}, "round_to")],
)
def test_arguments_out_of_range(arguments, message):
    with pytest.raises(RequestError, match=message):
        ChannelPruning(**arguments)


def test_a_failure_leaves_the_model_as_it_was(tmp_path):
    class Untraceable(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(36, 3)

        def forward(self, x):
            if not x.requires_grad and torch.is_grad_enabled():
                raise RuntimeError("cannot be traced")
            return self.layer(x.flatten(1))

    run = make_run(tmp_path, Network(Untraceable()), data(image=True))
    before = run.model
    with pytest.raises(RequestError, match="cannot be traced"):
        ChannelPruning().apply(run, 0.5)
    assert run.model is before
