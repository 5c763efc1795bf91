"""Distillation from layers: which are paired, regressors behind changed students, FitNets' first stage."""

import math

import pytest
import torch
from distillation_fakes import Build, net, prepared, step
from torch import nn
from train.train_fakes import data, make_run, weights

from bigopt.pipeline.build import Builder
from bigopt.train import Fitter
from bigopt.vocabulary.data import Schema
from bigopt.vocabulary.errors import RequestError
from bigopt_plugins.transfer.distillation._pairs import chosen, middle
from bigopt_plugins.transfer.distillation.plugin import Distillation


@pytest.fixture
def run(tmp_path):
    return make_run(tmp_path, net(), data(image=True), max_epochs=2)


def builder_net(name, size=8, **arguments):
    schema = Schema("classification", "image", (1, size, size), 3)
    fake = data(image=True)
    fake.schema = schema
    return Builder(0).model({"name": name, **arguments}, fake)


@pytest.mark.parametrize(
    ("student", "teacher", "expected"),
    [
        (
            ("resnet", {"width": 4, "depth": (1, 1)}),
            ("resnet", {"width": 8}),
            [("net.stages.0", "net.stages.0", (8, 8)), ("net.stages", "net.stages.1", (4, 4))],
        ),
        (("mlp", {"hidden": (8,)}), ("resnet", {"width": 4}), [("net.head/input", "net.head/input", ())]),
        (("resnet", {"width": 4}), ("mlp", {"hidden": (8,)}), [("net.head/input", "net.head/input", ())]),
    ],
    ids=["resnets", "mlp-resnet", "resnet-mlp"],
)
def test_default_pairs_of_built_in_nets(student, teacher, expected):
    models = [builder_net(name, **arguments) for name, arguments in (student, teacher)]
    found = chosen(*models, torch.rand(2, 1, 8, 8))
    assert [(pair.student, pair.teacher, pair.grid) for pair in found] == expected
    assert middle(found) == found[len(found) // 2 :][:1]


def test_layers_by_pattern_and_what_is_wrong_with_them():
    student, teacher, x = net(), net(6), torch.rand(2, 1, 6, 6)
    found = chosen(student, teacher, x, ("0.2", "0.5"), ("net.0.2", "0.[5]"))
    assert [(p.student, p.teacher, p.grid, p.channels) for p in found] == [
        ("net.0.2", "net.0.2", (6, 6), 6),
        ("net.0.5", "net.0.5", (3, 3), 12),
    ]
    for mine, theirs, problem in [
        (("0.2",), (), "only one is set"),
        (("0.9",), ("0.2",), "student_layers: '0.9' fits no layer; near: 0.5, 0.4, 0.3"),
        (("0.2", "0.5"), ("0.2",), "fit 2 layers"),
        (("0.2",), ("2",), "expected two maps"),
    ]:
        with pytest.raises(RequestError, match=problem):
            chosen(student, teacher, x, mine, theirs)


def test_a_converted_student_keeps_the_terms_that_need_no_layers(run):
    part = prepared(run, Distillation("fake", 0, hints=1.0, attention=1.0, distance=1.0), net(6, seed=3))
    run.model = nn.Sequential(nn.Flatten(), nn.Linear(36, 3))
    assert part.taps(run) == [] and part.modules(run) == {}
    assert set(step(run, part)) == {"distillation", "task"}


def test_a_pruned_student_gets_a_regressor_of_its_present_width(run):
    part = prepared(run, Distillation("fake", 0, hints=1.0), net(6, seed=3))
    run.model = net(3)
    (regressor,) = part.modules(run).values()
    assert tuple(regressor.layer.weight.shape) == (12, 6, 1, 1)
    assert math.isfinite(step(run, part)["hints"].item())


def test_fitnets_first_stage_trains_the_lower_layers_alone(run, tmp_path):
    run.build = Build(net(6, seed=3))
    before = weights(run.model)
    part = Distillation("fake", 0, hint_epochs=2, student_layers=("0.2",), teacher_layers=("0.2",))
    part.prepare(run, Fitter(tmp_path))
    after = weights(run.model)
    changed = {n for n in before if "running" not in n and "tracked" not in n and not torch.equal(before[n], after[n])}
    assert changed == {"net.0.0.weight", "net.0.1.weight", "net.0.1.bias", "net.0.0.bias"} - (
        {"net.0.0.bias"} if torch.equal(before["net.0.0.bias"], after["net.0.0.bias"]) else set()
    )
    assert run.history[0].name == "hints" and run.history[0].best_epoch == 2
    assert run.history[0].epochs[1]["train/loss"] < run.history[0].epochs[0]["train/loss"]
    assert part.taps(run) == []  # afterwards the answers alone
