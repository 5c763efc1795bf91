"""Concatenated features have the width and the values of their layers; the whole can be kept, pruned and exported."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional
from train.train_fakes import data, make_run
from transfer_nets import changed, net, state

from bigopt.pipeline.notes import Collected
from bigopt.surgery import Groups
from bigopt.train import Fitter
from bigopt.vocabulary.errors import RequestError
from bigopt_plugins.transfer._concatenated import Concatenated, averaged, make_head, matching
from bigopt_plugins.transfer.feature_concatenation import FeatureConcatenation

LAYERS = ["0.0", "0.1"]  # 4 × 3 × 3 and 6 × 3 × 3 maps


@pytest.fixture
def run(tmp_path):
    run = make_run(tmp_path, net(), data(image=True), max_epochs=2)
    run.report = Collected()
    return run


def prepared(run, tmp_path, **arguments):
    part = FeatureConcatenation(layers=LAYERS, **arguments)
    run.parts = [part]
    part.prepare(run, Fitter(tmp_path))
    return part


@pytest.mark.parametrize(("pool", "width"), [(1, 4 + 6), (2, 4 * 4 + 6 * 4), (3, 9 * (4 + 6))])
def test_the_width_is_the_sum_of_the_layers_cells(run, tmp_path, pool, width):
    prepared(run, tmp_path, pool=pool)
    assert run.data.train.x.shape == (64, width)


def test_the_features_are_the_pooled_outputs_of_the_layers(run, tmp_path):
    images, model = run.data.train.x, copy.deepcopy(run.model).eval()
    with torch.no_grad():
        first = model.net[0][0](model.normalize(images))
        second = model.net[0][1](first)
    prepared(run, tmp_path)
    assert torch.allclose(run.data.train.x, torch.cat([first.mean((2, 3)), second.mean((2, 3))], 1), atol=1e-6)


def test_the_net_is_frozen_bit_for_bit_and_the_head_learns(run, tmp_path):
    part = prepared(run, tmp_path, head="mlp", hidden=(8,))
    before = state(part._held.model)
    Fitter(tmp_path)(run, 2)
    part.finish(run, None)
    after = changed(before, state(run.model))
    assert after
    assert all(name.startswith("net.head.") for name in after)


def test_cells_are_those_of_adaptive_average_pooling():
    x = torch.rand(2, 3, 5, 7, generator=torch.Generator().manual_seed(0))
    for side in (1, 2, 3, 5):
        expected = functional.adaptive_avg_pool2d(x, side)
        assert torch.allclose(averaged(x, side), expected, atol=1e-6)
        whole = Concatenated(nn.Sequential(nn.Identity()), ["0"], side, True, nn.Identity())
        assert torch.allclose(whole(x), expected.movedim(1, -1).flatten(1), atol=1e-6)


def test_tokens_are_averaged_without_padding():
    class Encoder(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Identity()

        def forward(self, x, attention_mask=None):
            return self.layer(x)

    whole = Concatenated(Encoder(), ["layer"], 1, True, nn.Identity())
    x = torch.tensor([[[1.0, 2.0], [3.0, 4.0], [9.0, 9.0]]])
    assert whole(x, attention_mask=torch.tensor([[1, 1, 0]])).tolist() == [[2.0, 3.0]]


def test_a_star_stands_for_one_part_of_a_name():
    model = net().net
    assert matching(model, ["0.*"]) == ["0.0", "0.1", "0.2", "0.3"]
    assert matching(model, ["net.0.1", "0.0"]) == ["0.0", "0.1"]
    with pytest.raises(RequestError, match=r"'0\.9' fits no layer"):
        matching(model, ["0.9"])


@pytest.mark.parametrize(
    ("head", "pool"), [("linear", 1), ("linear", 2), ("mlp", 1), ("conv", 1)], ids=["linear", "cells", "mlp", "conv"]
)
def test_removed_channels_equal_zeroed_ones(run, tmp_path, head, pool):
    part = prepared(run, tmp_path, head=head, pool=pool, hidden=(8,))
    part.finish(run, None)
    model, x = run.model.eval(), run.data.val.x
    for name in ("net.net.0.0.0", "net.net.0.1.0"):
        zeroed, removed = copy.deepcopy(model), copy.deepcopy(model)
        for each, act in ((zeroed, Groups.zero), (removed, Groups.remove)):
            groups = Groups(each, x[:2])
            act(groups, next(g for g in groups if g.name == name), [0, 2])
        assert torch.allclose(zeroed(x), removed(x), atol=1e-5)
        assert removed.get_submodule(name).out_channels == model.get_submodule(name).out_channels - 2


def test_the_change_can_be_repeated(run, tmp_path):
    part = prepared(run, tmp_path, head="conv", hidden=(5,))
    Fitter(tmp_path)(run, 1)
    part.finish(run, None)
    fresh = net(seed=4)
    for entry in run.model.changes:
        FeatureConcatenation.replay(fresh, entry)
    fresh.load_state_dict(run.model.state_dict())
    assert torch.equal(fresh.eval()(run.data.val.x), run.model.eval()(run.data.val.x))


def test_the_exported_file_holds_all_of_it(run, tmp_path):
    from bigopt.measure import export_onnx, predict_onnx

    part = prepared(run, tmp_path, pool=2)
    part.finish(run, None)
    path = export_onnx(run.model, run.data.val.x[:2], tmp_path / "model.onnx")
    with torch.no_grad():
        expected = run.model.eval()(run.data.val.x)
    assert torch.allclose(predict_onnx(path, run.data.val, threads=1), expected, atol=1e-5)


def test_a_net_that_is_trained_learns_at_its_share_of_the_rate(run, tmp_path):
    part = prepared(run, tmp_path, freeze=False, lr_scale=0.25)
    groups = part.param_groups(run, [{"params": list(run.model.parameters()), "lr": 0.4}])
    rates = {id(p): group["lr"] for group in groups for p in group["params"]}
    assert rates[id(run.model.net.head.weight)] == 0.4
    assert rates[id(run.model.net.net[0][0][0].weight)] == pytest.approx(0.1)
    assert run.data.train.x.ndim == 4


def test_vectors_cannot_go_into_a_convolution(run, tmp_path):
    with pytest.raises(RequestError, match="conv needs maps"):
        FeatureConcatenation(layers=["0.1", "0.3"], head="conv").prepare(run, None)


def test_the_heads_layers():
    assert make_head("linear", 5, (), 3).weight.shape == (3, 5)
    assert [m.out_features for m in make_head("mlp", 5, (7, 6), 3) if isinstance(m, nn.Linear)] == [7, 6, 3]
    assert make_head("conv", 5, (4,), 3)(torch.rand(2, 5, 3, 3)).shape == (2, 3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"layers": []}, "layers"),
        ({"layers": ["a"], "pool": 0}, "pool"),
        ({"layers": ["a"], "head": "mlp", "hidden": ()}, "hidden"),
        ({"layers": ["a"], "lr_scale": 2.0}, "lr_scale"),
    ],
    ids=["layers", "pool", "hidden", "lr_scale"],
)
def test_arguments_of_concatenation_out_of_range(arguments, message):
    with pytest.raises(RequestError, match=message):
        FeatureConcatenation(**arguments)
