"""Magnitude pruning zeroes what its formulas say, and the zeros outlast training."""

import copy

import numpy as np
import pytest
import torch
from torch import nn
from train.train_fakes import cnn, data, make_run

from bigopt.measure import Session, count, export_onnx
from bigopt.pipeline.driver import compress
from bigopt.pipeline.notes import Collected
from bigopt.pipeline.structure import save_structure
from bigopt.train import Fitter
from bigopt.vocabulary.errors import RequestError
from bigopt.vocabulary.network import Network
from bigopt.vocabulary.settings import Optimizer, Recover, Schedule, StepOptions
from bigopt_plugins.compression._held import KeepZeros
from bigopt_plugins.compression._patterns import block_scores, lamp, largest
from bigopt_plugins.compression.magnitude_pruning import MagnitudePruning


def net() -> Network:
    torch.manual_seed(0)
    return Network(
        nn.Sequential(
            nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 12, 3, padding=1), nn.ReLU(),
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(12, 3),
        )
    )  # fmt: skip


@pytest.fixture
def run(tmp_path):
    return make_run(tmp_path, net(), data(image=True))


def zeros(model) -> dict[str, torch.Tensor]:
    return {n: p == 0 for n, p in model.named_parameters() if p.ndim > 1}


def test_global_ranking_takes_the_smallest_of_all_layers(run):
    flat = torch.cat([p.detach().abs().flatten() for p in run.model.parameters() if p.ndim > 1])
    threshold = np.sort(flat.numpy())[round(0.6 * len(flat))]
    before = copy.deepcopy(run.model)
    MagnitudePruning(ranking="global", min_left=0).apply(run, 0.6)
    for (name, new), old in zip(run.model.named_parameters(), before.parameters(), strict=True):
        expected = old if new.ndim == 1 else torch.where(old.abs() >= float(threshold), old, 0)
        assert torch.equal(new, expected), name


def test_local_ranking_takes_the_share_of_every_layer_and_the_floor_saves_a_weak_one(run):
    with torch.no_grad():
        run.model.net[7].weight *= 1e-3
    weak = copy.deepcopy(run.model)
    MagnitudePruning(ranking="local").apply(run, 0.75)
    assert [int((~z).sum()) for z in zeros(run.model).values()] == [18, 216, 9]
    for floor, left in ((0.0, 0), (0.25, 9)):
        run.model = copy.deepcopy(weak)
        MagnitudePruning(ranking="global", min_left=floor).apply(run, 0.9)
        assert int((run.model.net[7].weight != 0).sum()) == left


def test_lamp_is_its_formula_and_does_not_mind_a_layers_scale(run):
    values = torch.tensor([[1.0, 3.0], [0.0, 2.0]])
    torch.testing.assert_close(lamp(values).float(), torch.tensor([[1 / 14, 1.0], [0.0, 4 / 13]]))
    masks = []
    for scale in (1.0, 1e-3):
        trial = run.fork()
        with torch.no_grad():
            trial.model.net[7].weight *= scale
        MagnitudePruning().apply(trial, 0.9)
        masks.append(zeros(trial.model))
    assert all(torch.equal(masks[0][name], masks[1][name]) for name in masks[0])
    assert sum(int(z.sum()) for z in masks[0].values()) == 875


def test_two_of_four_consecutive_input_channels_stay(run):
    report = run.report = Collected()
    weight = run.model.net[3].weight.detach().clone()
    part = MagnitudePruning(pattern="2:4")
    assert part.strength() == 0.5
    assert part.layers(run) == ["net.3", "net.7"]
    part.apply(run, 0.5)
    kept = (run.model.net[3].weight != 0).movedim(1, -1).reshape(-1, 4)
    assert torch.equal(kept.sum(1), torch.full((len(kept),), 2))
    groups = weight.abs().movedim(1, -1).reshape(-1, 4)
    assert (groups.masked_fill(~kept, torch.inf).amin(1) >= groups.masked_fill(kept, 0).amax(1)).all()
    assert not (run.model.net[0].weight == 0).any()
    assert report.notes == ["net.0 was left as it was: its 1 input channels do not divide into groups of 4"]
    run.options = StepOptions(strict=True)
    with pytest.raises(RequestError, match="net.0"):
        part.apply(run, 0.5)


def test_blocks_are_scored_by_the_mean_and_go_whole(run):
    matrix = torch.tensor([[1.0, -3.0, 2.0], [0.0, 4.0, -6.0], [5.0, 5.0, 8.0]])
    torch.testing.assert_close(block_scores(matrix, (2, 2), "l1"), torch.tensor([[2.0, 4.0], [5.0, 8.0]]))
    expected = torch.tensor([[26 / 4, 40 / 2], [50 / 2, 64.0]]).sqrt()
    torch.testing.assert_close(block_scores(matrix, (2, 2), "l2"), expected)
    MagnitudePruning(pattern="4x3", ranking="local").apply(run, 0.5)
    blocks = (run.model.net[3].weight.reshape(12, 72) != 0).reshape(3, 4, 24, 3).sum((1, 3))
    assert set(blocks.flatten().tolist()) == {0, 12}
    assert int((blocks > 0).sum()) == 36


@pytest.mark.parametrize("pattern", ["unstructured", "1:4", "2x2"])
@pytest.mark.parametrize("schedule", ["iterative", "gradual"])
def test_rounds_reach_what_one_shot_reaches(run, pattern, schedule):
    part = MagnitudePruning(pattern=pattern)
    one = run.fork()
    part.apply(one, part.strength())
    options = StepOptions(schedule=Schedule(schedule, 5), recover=Recover(epochs=0))
    compress(run, "magnitude_pruning", part, options, Fitter(run.folder))
    for a, b in zip(zeros(one.model).values(), zeros(run.model).values(), strict=True):
        assert abs(int(a.sum()) - int(b.sum())) <= (0 if pattern == "1:4" else 8)


@pytest.mark.parametrize(("optimizer", "ema"), [("adamw", 0.5), ("sgd", None)])
def test_masks_survive_recovery_and_later_steps(tmp_path, optimizer, ema):
    run = make_run(tmp_path, net(), data(image=True), optimizer=Optimizer(name=optimizer, lr=0.05), ema=ema)
    part, fit = MagnitudePruning(0.7), Fitter(tmp_path)
    probe = run.fork()
    part.apply(probe, 0.7)
    expected = zeros(probe.model)
    trained = run.model.net[3].weight.detach().clone()
    compress(run, "magnitude_pruning", part, StepOptions(recover=Recover(epochs=2)), fit)
    assert all(torch.equal(z, expected[n]) for n, z in zeros(run.model).items())
    alive = ~expected["net.3.weight"]
    assert not torch.equal(run.model.net[3].weight[alive], trained[alive])
    assert [type(p) for p in run.parts] == [KeepZeros]
    fit(run, 1, name="a later step")
    assert all(torch.equal(z, expected[n]) for n, z in zeros(run.model).items())


def test_the_model_that_is_left_is_a_plain_one(run, tmp_path):
    names = list(run.model.state_dict())
    compress(run, "magnitude_pruning", MagnitudePruning(), StepOptions(recover=Recover(epochs=1)), Fitter(tmp_path))
    assert list(run.model.state_dict()) == names
    assert [n for n, _ in run.model.named_buffers()] == [n for n in names if "running" in n or "tracked" in n]
    save_structure(run.model, {"name": "fake"}, run.model.changes, tmp_path)
    x = run.data.val.x
    with torch.no_grad():
        expected = run.model.eval()(x)
    file = export_onnx(run.model, x, tmp_path / "model.onnx")
    assert (Session(file).run(x) - expected).abs().max() < 1e-4


def test_the_report_says_what_changed_and_what_did_not(run, tmp_path):
    run.report = report = Collected()
    dense = count(run.model, run.data.val.x[:1])
    compress(run, "magnitude_pruning", MagnitudePruning(0.9), StepOptions(recover=Recover(epochs=0)), Fitter(tmp_path))
    counted = count(run.model, run.data.val.x[:1])
    weights = sum(p.numel() for p in run.model.parameters() if p.ndim > 1)
    assert report.values["nonzero_weights"] == weights - (dense.nonzero - counted.nonzero) == weights - 875
    assert report.values["sparsity"] == 875 / weights
    assert report.values["weight_bytes"]["dense"] == 4 * weights
    assert report.values["weight_bytes"]["deflated"] < 0.3 * 4 * weights
    assert (counted.macs, counted.parameters) == (dense.macs, dense.parameters)
    assert report.values["changes"]["latency"] is False
    assert any("latency do not" in note for note in report.notes)
    assert not any(torch.signbit(p[p == 0]).any() for p in run.model.parameters())  # -0.0 would not deflate


def test_ignored_layers_one_layer_and_earlier_zeros(run):
    part = MagnitudePruning(ranking="local")
    part.apply(run, 0.5, only="net.3")
    assert [int(z.sum()) for z in zeros(run.model).values()] == [0, 432, 0]
    part.apply(run, 0.5)
    assert [int(z.sum()) for z in zeros(run.model).values()] == [36, 648, 18]
    run.options = StepOptions(ignore=("net.3",))
    assert part.layers(run) == ["net.0", "net.7"]


@pytest.mark.parametrize("kind", ["vit", "bert"])
def test_transformers_and_their_other_weights_are_named(tmp_path, kind):
    transformers = pytest.importorskip("transformers")
    common = dict(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=24, num_labels=3)
    if kind == "vit":
        config = transformers.ViTConfig(image_size=6, patch_size=3, num_channels=1, **common)
        model = Network(transformers.ViTForImageClassification(config))
    else:
        config = transformers.BertConfig(vocab_size=20, max_position_embeddings=12, **common)
        model = Network(transformers.BertForSequenceClassification(config), pad_id=0)
    run = make_run(tmp_path, model, data(image=True))
    run.report = report = Collected()
    MagnitudePruning(ranking="local").apply(run, 0.5)
    linear = [m for m in run.model.modules() if isinstance(m, nn.Linear | nn.Conv2d)]
    assert {int((m.weight == 0).sum()) * 2 - m.weight.numel() for m in linear} <= {0, 1}
    assert any("embeddings" in note and "left as it was" in note for note in report.notes)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"ratio": 1.0}, "ratio: got 1.0"),
        ({"norm": "l3"}, "norm"),
        ({"pattern": "4:2"}, "pattern: got '4:2'"),
        ({"pattern": "2:4", "ratio": 0.8}, "the pattern 2:4 says 0.5"),
        ({"ranking": "x"}, "ranking"),
        ({"min_left": 1}, "min_left"),
    ],
)
def test_arguments_out_of_range(arguments, message):
    with pytest.raises(RequestError, match=message):
        MagnitudePruning(**arguments)


def test_same_model_same_mask(tmp_path):
    one, two = (make_run(tmp_path, Network(cnn()), data(image=True)) for _ in range(2))
    for run in (one, two):
        MagnitudePruning().apply(run, 0.8)
    assert all(torch.equal(a, b) for a, b in zip(one.model.parameters(), two.model.parameters(), strict=True))


@pytest.mark.parametrize("count", [0, 1, 7, 19, 20])
def test_the_largest_are_those_of_a_stable_sort(count):
    values = torch.tensor([3, 0, 1, 3, 2] * 4).float() + torch.tensor([0.0, 0, 0, 0, float("inf")] * 4)
    expected = torch.zeros(20, dtype=torch.bool)
    expected[values.argsort(descending=True, stable=True)[:count]] = True
    assert torch.equal(largest(values, count), expected)
    assert torch.equal(largest(values.double(), count), expected)
