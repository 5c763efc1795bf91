"""A frozen extractor stays bit for bit; its features are computed once and are those of the model."""

import pytest
import torch
from torch import nn
from train.train_fakes import data, make_run
from transfer_nets import Build, changed, net, state

from bigopt.pipeline.notes import Collected
from bigopt.store import load_tensors
from bigopt.train import Fitter
from bigopt.vocabulary.data import Schema
from bigopt.vocabulary.errors import RequestError
from bigopt.vocabulary.part import Part
from bigopt_plugins.transfer._features import Standardize, cut_off, fold, scaled_head
from bigopt_plugins.transfer.feature_extraction import FeatureExtraction

CUT = "net.1"


@pytest.fixture
def run(tmp_path):
    run = make_run(tmp_path, net(), data(image=True), max_epochs=3)
    run.report = Collected()
    return run


def through(run, part, tmp_path):
    """What the spine does before the first row."""
    run.parts = [part, *run.parts]
    fit = Fitter(tmp_path)
    part.prepare(run, fit)
    fit(run, name="baseline")
    part.finish(run, fit)


def test_frozen_is_bit_identical_and_only_the_head_learns(run, tmp_path):
    before = state(run.model)
    model = run.model
    through(run, FeatureExtraction(), tmp_path)
    assert run.model is model
    assert changed(before, state(run.model)) == {f"{CUT}.weight", f"{CUT}.bias"}


def test_the_backbone_sees_every_sample_once_however_many_epochs(run, tmp_path):
    rows = []
    run.model.net[0].register_forward_hook(lambda _m, inputs, _o: rows.append(len(inputs[0])))
    part = FeatureExtraction()
    run.parts = [part]
    part.prepare(run, None)
    Fitter(tmp_path)(run, 4)
    assert sum(rows) == len(run.data.train) + len(run.data.val)


def test_cached_features_are_what_the_model_computes(run):
    model, images = run.model, run.data.train
    part = FeatureExtraction()
    run.parts = [part]
    part.prepare(run, None)
    with torch.no_grad(), cut_off(model, CUT):
        expected = model.eval()(images.take(torch.arange(len(images))))
    assert torch.equal(run.data.train.x, expected)
    assert torch.equal(run.data.train.y, images.y)


def test_validation_of_the_head_is_that_of_the_whole_model(run, tmp_path):
    part = FeatureExtraction()
    run.parts = [part]
    fit = Fitter(tmp_path)
    part.prepare(run, fit)
    history = fit(run, name="baseline")
    part.finish(run, fit)
    row = run.report.tables["heads"][0]
    assert row["head"] == "target"
    assert row["val/accuracy"] == history.epochs[history.best_epoch - 1]["val/accuracy"]


def test_standardisation_is_folded_into_the_first_layer():
    torch.manual_seed(0)
    x = torch.randn(20, 4) * torch.tensor([1.0, 5.0, 0.1, 2.0]) + 3
    head = nn.Sequential(nn.Dropout(0.5), nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2)).eval()
    wanted = head(x)
    scaled = scaled_head(head, x).eval()
    assert torch.allclose(scaled(x), wanted, atol=1e-5)
    assert torch.allclose(Standardize.of(x)(x).std(0, correction=0), torch.ones(4), atol=1e-5)
    with torch.no_grad():
        head[1].weight.add_(0.3)
        trained = scaled(x)
    assert torch.allclose(fold(scaled)(x), trained, atol=1e-5)


def test_a_constant_feature_keeps_its_scale():
    scale = Standardize.of(torch.tensor([[2.0, 1.0], [2.0, 3.0]]))
    assert scale.std.tolist() == [1.0, 1.0]


def test_with_another_part_the_whole_model_runs_and_stays_frozen(run, tmp_path):
    run.parts = [Part()]
    before = state(run.model)
    through(run, FeatureExtraction(), tmp_path)
    assert changed(before, state(run.model)) == {f"{CUT}.weight", f"{CUT}.bias"}
    assert any("features are computed in each step" in note for note in run.report.notes)


def test_a_hidden_head_is_a_change_that_can_be_repeated(run, tmp_path):
    through(run, FeatureExtraction(hidden=(7,)), tmp_path)
    fresh = net(seed=5)
    for entry in run.model.changes:
        FeatureExtraction.replay(fresh, entry)
    fresh.load_state_dict(run.model.state_dict())
    x = run.data.val.x
    assert torch.equal(fresh.eval()(x), run.model.eval()(x))
    assert [m.out_features for m in run.model.net[1] if isinstance(m, nn.Linear)] == [7, 3]


def test_source_and_further_heads_share_the_extractor(run, tmp_path):
    other = data(image=True)
    other.schema = Schema("classification", "image", (1, 6, 6), 3, ("a", "b", "c"))
    run.build = Build(net(seed=7), other)
    run.settings.extra["model"] = {"name": "resnet"}
    through(run, FeatureExtraction(source="other", source_epochs=1, heads={"again": "other"}), tmp_path)
    rows = run.report.tables["heads"]
    assert [row["head"] for row in rows] == ["source", "target", "again"]
    head = load_tensors(tmp_path / "heads" / "again.safetensors")
    assert {name: tuple(t.shape) for name, t in head.items()} == {"weight": (3, 6), "bias": (3,)}
    with torch.no_grad(), cut_off(run.model, CUT):
        logits = run.model.eval()(other.val.x) @ head["weight"].T + head["bias"]
    accuracy = (logits.argmax(1) == other.val.y).double().mean().item()
    assert rows[2]["val/accuracy"] == pytest.approx(accuracy)


def test_the_head_of_other_classes_is_not_taken_over(run, tmp_path):
    run.data.schema = Schema("classification", "image", (1, 6, 6), 3, ("x", "y", "z"))
    other = data(image=True)
    other.schema = Schema("classification", "image", (1, 6, 6), 3, ("a", "b", "c"))
    run.build = Build(net(seed=7), other)
    run.settings.extra["model"] = {"name": "resnet"}
    own = run.model.net[1].weight.detach().clone()
    part = FeatureExtraction(source="other")
    run.parts = [part, Part()]
    part.prepare(run, lambda source, epochs=None, **_: None)
    assert torch.equal(run.model.net[1].weight, own)
    assert torch.equal(run.model.net[0][0][0].weight, run.build.prepared.net[0][0][0].weight)


def test_recovery_trains_the_extractor_only_when_asked(run, tmp_path):
    through(run, FeatureExtraction(recover_extractor=True), tmp_path)
    before = state(run.model)
    Fitter(tmp_path / "again")(run, 1)
    assert "net.0.0.0.weight" in changed(before, state(run.model))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"source_epochs": 0}, "source_epochs"),
        ({"hidden": (0,)}, "hidden"),
        ({"heads": {"a/b": "digits"}}, "heads"),
    ],
    ids=["source_epochs", "hidden", "heads"],
)
def test_arguments_of_extraction_out_of_range(arguments, message):
    with pytest.raises(RequestError, match=message):
        FeatureExtraction(**arguments)


def test_a_cut_that_is_no_module(run):
    with pytest.raises(RequestError, match=r"transfer\.cut: got 'nowhere'"):
        FeatureExtraction(cut="nowhere").prepare(run, None)
