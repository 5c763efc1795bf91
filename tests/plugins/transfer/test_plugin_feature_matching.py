"""Maps between feature spaces have their closed forms, and the old head classifies through them."""

import pytest
import torch
from torch import nn
from train.train_fakes import data, make_run
from transfer_nets import Build, net, state

from bigopt.pipeline.notes import Collected
from bigopt.train import Fitter, evaluate
from bigopt.vocabulary.data import Schema
from bigopt.vocabulary.errors import RequestError
from bigopt_plugins.transfer._matching import matching_error, procrustes, ridge
from bigopt_plugins.transfer.feature_matching import FeatureMatching

NAMES = ("a", "b", "c")


def pairs(n=50, f=4, g=3):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(n, f, generator=generator) * torch.arange(1, f + 1) + 2
    return x, torch.randn(n, g, generator=generator) + x[:, :g]


def test_ridge_is_its_closed_form():
    x, y = pairs()
    weight, bias = ridge(x, y, 0.3)
    z = (x - x.mean(0)) / x.std(0, correction=0)
    expected = torch.linalg.inv(z.T @ z + 0.3 * len(z) * torch.eye(4)) @ z.T @ (y - y.mean(0))
    assert torch.allclose(x @ weight.T + bias, z @ expected + y.mean(0), atol=1e-4)


def test_ridge_of_no_strength_is_least_squares_and_its_errors_are_orthogonal():
    x, y = pairs()
    weight, bias = ridge(x, y, 1e-9)
    error = y - (x @ weight.T + bias)
    assert torch.allclose(error.T @ x, torch.zeros(3, 4), atol=2e-3)


def test_procrustes_is_orthogonal_and_finds_a_rotation():
    x, _ = pairs(f=4)
    q, _ = torch.linalg.qr(torch.randn(4, 4, generator=torch.Generator().manual_seed(1)))
    rotation, scale, bias = procrustes(x, 2.5 * x @ q + 1)
    assert torch.allclose(rotation @ rotation.T, torch.eye(4), atol=1e-5)
    assert torch.allclose(rotation, q, atol=1e-4)
    assert scale == pytest.approx(2.5, rel=1e-4)
    assert torch.allclose(scale * x @ rotation + bias, 2.5 * x @ q + 1, atol=1e-3)


def test_procrustes_of_noise_is_still_orthogonal_and_no_rotation_is_better():
    x, _ = pairs(f=3)
    y = torch.randn(50, 3, generator=torch.Generator().manual_seed(2))
    rotation, scale, bias = procrustes(x, y)
    assert torch.allclose(rotation @ rotation.T, torch.eye(3), atol=1e-5)
    best = matching_error(scale * x @ rotation + bias, y)
    for angle in (0.1, -0.1):
        turn = torch.eye(3)
        turn[:2, :2] = torch.tensor([[1.0, -angle], [angle, 1.0]]) / (1 + angle**2) ** 0.5
        moved = scale * (x - x.mean(0)) @ rotation @ turn + y.mean(0)
        assert matching_error(moved, y) > best


def test_procrustes_needs_equal_dimensions():
    with pytest.raises(RequestError, match="4 features of the new extractor and 3 of the old one"):
        procrustes(*pairs())


def test_the_error_is_a_share_of_the_variance():
    y = torch.tensor([[0.0], [2.0]])
    assert matching_error(y, y) == 0
    assert matching_error(torch.tensor([[1.0], [1.0]]), y) == 1


@pytest.fixture
def run(tmp_path):
    dataset = data(image=True)
    dataset.schema = Schema("classification", "image", (1, 6, 6), 3, NAMES)
    run = make_run(tmp_path, net(), dataset, max_epochs=3)
    run.report = Collected()
    run.settings.extra["model"] = {"name": "resnet"}
    source = data(image=True)
    source.schema = Schema("classification", "image", (1, 6, 6), 3, ("c", "a", "b"))
    run.build = Build(net(seed=9), source)
    return run


def through(run, tmp_path, **arguments):
    part = FeatureMatching(source="other", source_epochs=2, **arguments)
    run.parts = [part]
    fit = Fitter(tmp_path)
    part.prepare(run, fit)
    fit(run, name="baseline")
    before = state(run.model)
    part.finish(run, fit)
    return part, before


@pytest.mark.parametrize("method", ["ridge", "procrustes", "mlp"])
def test_the_old_head_classifies_through_the_map(run, tmp_path, method):
    _part, before = through(run, tmp_path, map=method, hidden=12)
    row = run.report.values["feature_matching"]
    assert row["accuracy/matched"] == pytest.approx(evaluate(run, run.data.val)["accuracy"])
    assert row["extra_error/own_head"] == pytest.approx(row["accuracy/own_head"] - row["accuracy/matched"])
    assert row["extra_error/old_model"] == pytest.approx(row["accuracy/old_model"] - row["accuracy/matched"])
    assert 0 <= row["error/train"] < 1.5
    kept = {name for name in before if not name.startswith("net.1.")}
    assert all(torch.equal(before[name], run.model.state_dict()[name]) for name in kept)
    assert len(run.model.changes) == (1 if method == "mlp" else 0)


def test_the_folded_head_is_the_map_followed_by_the_old_head(run, tmp_path):
    part = FeatureMatching(source="other", ridge=0.01)
    part.prepare(run, lambda *_a, **_k: None)
    old = part._old.eval()
    x = run.data.train.x
    with torch.no_grad():
        new_features, old_features = run.model.eval().net[0](x), old.net[0](x)
        weight, bias = ridge(new_features, old_features, 0.01)
        logits = old.net[1](new_features @ weight.T + bias)
        part.finish(run, None)
        # the old model's classes are c, a, b
        assert torch.allclose(run.model(x), logits[:, [1, 2, 0]], atol=1e-4)


def test_a_perceptrons_head_can_be_repeated(run, tmp_path):
    through(run, tmp_path, map="mlp", hidden=12)
    fresh = net(seed=3)
    FeatureMatching.replay(fresh, run.model.changes[0])
    fresh.load_state_dict(run.model.state_dict())
    assert torch.equal(fresh.eval()(run.data.val.x), run.model.eval()(run.data.val.x))
    assert [m.out_features for m in fresh.net[1] if isinstance(m, nn.Linear)] == [12, 3]


def test_other_classes_are_refused_before_anything_is_trained(run):
    run.data.schema = Schema("classification", "image", (1, 6, 6), 3, ("a", "b", "d"))
    trained = []
    with pytest.raises(RequestError, match=r"source \[c, a, b\]; target \[a, b, d\]"):
        FeatureMatching(source="other").prepare(run, lambda *_a, **_k: trained.append(1))
    assert not trained


def test_a_label_map_names_the_pairs(run):
    run.data.schema = Schema("classification", "image", (1, 6, 6), 3, ("a", "b", "d"))
    part = FeatureMatching(source="other", label_map={"d": "c"})
    part.prepare(run, lambda *_a, **_k: None)
    assert part._rows == [1, 2, 0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [({}, "source"), ({"source": "x", "ridge": 0.0}, "ridge"), ({"source": "x", "hidden": 0}, "hidden")],
    ids=["source", "ridge", "hidden"],
)
def test_arguments_of_matching_out_of_range(arguments, message):
    with pytest.raises(RequestError, match=message):
        FeatureMatching(**arguments)
