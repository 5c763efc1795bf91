"""Normalisation layers: what is inserted or removed leaves the function, what is frozen stays, loading repeats it."""

import copy

import pytest
import torch
from torch import nn
from train.train_fakes import cnn, data, make_run

from bigopt.pipeline.structure import load_structure, save_structure
from bigopt.train import Fitter
from bigopt.vocabulary.errors import RequestError
from bigopt.vocabulary.network import Network
from bigopt_plugins.recipe.norm._layers import batch_norms, followers
from bigopt_plugins.recipe.norm.plugin import Norm


def plain() -> Network:
    torch.manual_seed(0)
    features = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 6, 3, bias=False), nn.BatchNorm2d(6), nn.ReLU()
    )
    return Network(nn.Sequential(features, nn.Flatten(), nn.Linear(24, 5), nn.ReLU(), nn.Linear(5, 3)))


@pytest.fixture
def run(tmp_path):
    run = make_run(tmp_path, plain(), data(image=True))
    norm = run.model.net[0][3]
    with torch.no_grad():
        norm.running_mean.uniform_(-1, 1)
        norm.running_var.uniform_(0.5, 2)
        norm.weight.uniform_(0.5, 2)
        norm.bias.uniform_(-1, 1)
    return run


def outputs(run):
    return run.model.eval()(run.data.train.x).detach()


def test_layers_and_the_norms_right_behind_them(run):
    assert followers(run.model, run.data.train.x[:2]) == {
        "net.0.0": None,
        "net.0.2": "net.0.3",
        "net.2": None,
        "net.4": None,
    }


def test_insertion_leaves_the_function_and_spares_the_last_layer(run):
    before = outputs(run)
    Norm("insert").prepare(run, None)
    assert batch_norms(run.model) == ["net.0.0.1", "net.0.3", "net.2.1"]
    assert outputs(run) == pytest.approx(before, abs=1e-4)
    run.model.train()(run.data.train.x)
    assert run.model.net[2][1].running_mean.abs().sum() > 0


def test_removal_folds_what_the_norm_did(run):
    before = outputs(run)
    Norm("remove").prepare(run, None)
    assert batch_norms(run.model) == [] and run.model.net[0][2].bias is not None
    assert outputs(run) == pytest.approx(before, abs=1e-5)


@pytest.mark.parametrize(("kind", "groups", "expected"), [("group", 4, 2), ("group", 3, 3), ("layer", 8, 1)], ids=str)
def test_other_norms_take_over_scale_and_shift(run, kind, groups, expected):
    old = copy.deepcopy(run.model.net[0][3])
    Norm(kind, groups=groups).prepare(run, None)
    new = run.model.net[0][3]
    assert isinstance(new, nn.GroupNorm) and new.num_groups == expected
    x = torch.randn(2, 6, 4, 4)
    grouped = x.reshape(2, expected, -1)
    std = (grouped.var(2, correction=0, keepdim=True) + old.eps).sqrt()
    standard = ((grouped - grouped.mean(2, keepdim=True)) / std).reshape(x.shape)
    expected_out = standard * old.weight[:, None, None] + old.bias[:, None, None]
    assert new(x).detach() == pytest.approx(expected_out.detach(), abs=1e-5)


@pytest.mark.parametrize("kind", ["insert", "remove", "group", "layer"])
def test_a_changed_model_is_loaded_again(run, tmp_path, kind):
    Norm(kind).prepare(run, None)
    save_structure(run.model, {"name": "plain"}, run.model.changes, tmp_path)
    again = load_structure(tmp_path, lambda _spec: plain(), {"norm": Norm.replay})
    assert torch.equal(again.eval()(run.data.train.x), outputs(run))


def test_momentum_and_frozen_layers(run, tmp_path):
    Norm(momentum=0.3, freeze=True).prepare(run, None)
    norm = run.model.net[0][3]
    before = {name: value.clone() for name, value in norm.state_dict().items()}
    Fitter(tmp_path)(run, 1)
    assert norm.momentum == 0.3
    assert all(torch.equal(value, before[name]) for name, value in norm.state_dict().items())


def test_nothing_to_change_is_noted(tmp_path):
    run = make_run(tmp_path, Network(nn.Sequential(nn.Flatten(), nn.Linear(36, 3))), data(image=True))
    notes = []
    run.report.note = notes.append
    Norm("remove").prepare(run, None)
    assert notes == ["norm: nothing to remove: the model has no layer for it"] and run.model.changes == []


def test_a_change_that_does_not_fit_is_one_clear_line():
    with pytest.raises(RequestError, match="does not fit this model"):
        Norm.replay(cnn(), {"change": "insert", "layers": ["nowhere"]})


@pytest.mark.parametrize(
    "arguments", [{"kind": "instance"}, {"groups": 0}, {"momentum": 0.0}], ids=lambda arguments: next(iter(arguments))
)
def test_arguments_out_of_range(arguments):
    with pytest.raises(RequestError, match=f"norm.{next(iter(arguments))}: got"):
        Norm(**arguments)
