"""Sparse variational dropout: the paper's numbers, gradients, and plain weights in the end."""

import math

import pytest
import torch
from gated_nets import CONVOLUTIONAL, TRANSFORMERS, inputs, small
from torch import nn
from train.train_fakes import data, make_run

from bigopt.measure import export_onnx
from bigopt.measure.session import Session
from bigopt.pipeline.driver import compress
from bigopt.train import Fitter
from bigopt.vocabulary.batch import Batch, Output
from bigopt.vocabulary.errors import RequestError
from bigopt.vocabulary.objective import Monitor
from bigopt.vocabulary.settings import Optimizer, Recover, StepOptions
from bigopt_plugins.compression._held import KeepZeros
from bigopt_plugins.compression._noisy import NoisyLayer, kl_divergence
from bigopt_plugins.compression.variational_dropout import VariationalDropout, noisy


def prepared(tmp_path, topology="sequential", **arguments):
    run = make_run(tmp_path, small(topology), data(image=True))
    part = VariationalDropout(**arguments)
    part.prepare(run, None)
    return run, part


def test_kl_is_the_papers_approximation():
    for log_alpha in (-8.0, -2.0, 0.0, 1.0, 3.0, 8.0):
        sigmoid = 1 / (1 + math.exp(-(1.87320 + 1.48695 * log_alpha)))
        negative = 0.63576 * sigmoid - 0.5 * math.log(1 + math.exp(-log_alpha)) - 0.63576
        assert kl_divergence(torch.tensor(log_alpha)).item() == pytest.approx(-negative, abs=1e-6)
    # -(0.63576·σ(1.8732) − ½·ln 2 − 0.63576)
    assert kl_divergence(torch.tensor(0.0)).item() == pytest.approx(0.43124, abs=1e-5)


@pytest.mark.parametrize(
    ("layer", "shape"),
    [(nn.Linear(6, 4), (3, 6)), (nn.Conv2d(2, 3, 3, padding=1), (3, 2, 5, 5))],
    ids=["linear", "conv"],
)
def test_outputs_have_the_mean_and_variance_of_noisy_weights(layer, shape):
    torch.manual_seed(0)
    x = torch.randn(shape)
    module = NoisyLayer(layer, log_alpha=-1.0, threshold=3.0).train()
    with torch.no_grad():
        draws = torch.stack([module(x) for _ in range(2000)])
        kept = layer.weight.clone()
        sigma = (kept.square() * math.exp(-1.0)).sqrt()
        by_weights = []
        for _ in range(2000):
            layer.weight.copy_(kept + sigma * torch.randn_like(sigma))
            by_weights.append(layer(x))
        layer.weight.copy_(kept)
        by_weights = torch.stack(by_weights)
        assert torch.allclose(draws.mean(0), layer(x), atol=0.1)
        assert torch.allclose(draws.std(0), by_weights.std(0), rtol=0.1, atol=1e-3)


def test_gradients_reach_means_and_noise_from_data_and_from_the_kl():
    torch.manual_seed(0)
    module = NoisyLayer(nn.Linear(6, 4), log_alpha=-2.0, threshold=3.0).train()
    module(torch.randn(8, 6)).square().sum().backward()
    assert (module.log_sigma2.grad != 0).all() and (module.theta.grad != 0).all()
    module.zero_grad()
    kl_divergence(module.log_alpha()).sum().backward()
    assert (module.log_sigma2.grad < 0).all()  # more noise is cheaper


def test_evaluation_drops_what_is_over_the_threshold():
    layer = nn.Linear(3, 1)
    module = NoisyLayer(layer, log_alpha=-2.0, threshold=3.0).eval()
    assert torch.equal(module.weight, layer.weight)
    with torch.no_grad():
        module.log_sigma2[0, 1] += 5.5
    x = torch.eye(3)
    with torch.no_grad():
        expected = layer.weight[0] * torch.tensor([1.0, 0.0, 1.0]) + layer.bias
        assert torch.allclose(module(x)[:, 0], expected)


@pytest.mark.parametrize("topology", [*CONVOLUTIONAL, *TRANSFORMERS])
def test_starts_unchanged_and_leaves_a_plain_model_with_the_same_outputs(tmp_path, topology):
    x = inputs(topology)
    with torch.no_grad():
        before = small(topology)(x)
    run, part = prepared(tmp_path, topology)
    names = list(small(topology).state_dict())
    with torch.no_grad():
        assert torch.allclose(run.model.eval()(x), before, atol=1e-6)
        generator = torch.Generator().manual_seed(1)
        for layer in noisy(run.model):
            layer.log_sigma2 += 12 * torch.rand(layer.log_sigma2.shape, generator=generator)
        settled = run.model.eval()(x)
    part.finish(run, None)
    with torch.no_grad():
        assert (run.model.eval()(x) - settled).abs().max() < 1e-6
    assert list(run.model.state_dict()) == names
    zeros = sum(int((p == 0).sum()) for n, p in run.model.named_parameters() if p.ndim > 1)
    assert zeros > 50
    assert run.monitor == Monitor("val/accuracy", "max")
    assert isinstance(run.parts[-1], KeepZeros)
    if topology == "residual":
        path = export_onnx(run.model, x[:2], tmp_path / "model.onnx")
        assert (Session(path).run(x) - settled).abs().max() < 1e-4


def test_loss_is_the_warm_share_of_the_kl_over_the_samples(tmp_path):
    batch, output = Batch(inputs("sequential"), None, torch.arange(16)), Output(torch.zeros(16, 3))
    run, part = prepared(tmp_path, kl_weight=2.0)
    kl = sum(kl_divergence(layer.log_alpha()).sum().item() for layer in noisy(run.model))
    assert part.loss(run, batch, output)["variational_dropout_kl"].item() == 0
    part.modules(run)["variational_dropout"].share.fill_(0.25)
    assert part.loss(run, batch, output)["variational_dropout_kl"].item() == pytest.approx(0.25 * 2 * kl / 64, rel=1e-5)
    run, part = prepared(tmp_path)
    weights = sum(layer.theta.numel() for layer in noisy(run.model))
    assert part.divergence(run).item() == pytest.approx(kl / weights, rel=1e-5)  # min(1, N/|θ|)·KL/N


def test_noise_has_its_own_rate_and_no_decay(tmp_path):
    run, part = prepared(tmp_path, noise_lr=0.3)
    groups = part.param_groups(run, [{"params": list(run.model.parameters()), "lr": 0.01, "weight_decay": 0.1}])
    assert [(g["lr"], g["weight_decay"], len(g["params"])) for g in groups][1] == (0.3, 0.0, 4)
    assert sum(len(g["params"]) for g in groups) == len(list(run.model.parameters()))


def test_a_fit_drops_weights_and_repeats(tmp_path):
    def trained(folder):
        run = make_run(folder, small("sequential"), data(image=True), max_epochs=8, optimizer=Optimizer(lr=3e-3))
        part = VariationalDropout(kl_weight=1.0, noise_lr=1.0)
        compress(run, "drop", part, StepOptions(recover=Recover(lr=1.0)), Fitter(folder))
        return run

    first, again = trained(tmp_path / "a"), trained(tmp_path / "b")
    weights = [m.weight for m in first.model.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    assert sum(int((w == 0).sum()) for w in weights) > 0.2 * sum(w.numel() for w in weights)
    assert all(torch.equal(p, q) for p, q in zip(first.model.parameters(), again.model.parameters(), strict=True))
    assert "train/variational_dropout_kl" in first.history[-1].epochs[-1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"threshold": 9.0}, "threshold: got 9.0"),
        ({"log_alpha": 4.0}, "log_alpha: got 4.0"),
        ({"kl_weight": 0.0}, "kl_weight: got 0.0"),
        ({"warmup": 1.5}, "warmup: got 1.5"),
    ],
)
def test_arguments_out_of_range(arguments, message):
    with pytest.raises(RequestError, match=message):
        VariationalDropout(**arguments)
