"""Bias correction: means agree again, layer by layer."""

import copy

import pytest
import torch
from gated_nets import inputs, small
from torch import nn

from bigopt_plugins.compression.quantization._bias_correction import channel_means, correct_biases
from bigopt_plugins.compression.quantization._folding import fold_norms


def rounded(model, bits):
    """One scale per tensor, to nearest."""
    model = copy.deepcopy(model)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                scale = module.weight.abs().max() / (2 ** (bits - 1) - 1)
                module.weight.copy_((module.weight / scale).round() * scale)
    return model


def layers_of(model):
    return [name for name, module in model.named_modules() if isinstance(module, nn.Conv2d | nn.Linear)]


def test_one_layer_gets_the_expected_error_of_its_weights():
    """b ← b − (Ŵ − W)·E[x], eq. 15 of the paper."""
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Linear(4, 3)), torch.rand(50, 4)
    coarse = rounded(model, 3)
    epsilon = coarse[0].weight - model[0].weight
    expected = model[0].bias - epsilon @ x.mean(0)
    moved = correct_biases(model, coarse, ["0"], x, batch_size=7)
    torch.testing.assert_close(coarse[0].bias, expected)
    torch.testing.assert_close(moved["0"], (-epsilon @ x.mean(0)).detach())


@pytest.mark.parametrize("topology", ["sequential", "residual", "depthwise", "vit", "bert"])
def test_the_means_of_every_layer_agree_afterwards(topology):
    model, x = small(topology), inputs(topology, 48)
    fold_norms(model, x[:2])
    coarse, layers = rounded(model, 4), layers_of(model)
    with torch.no_grad():
        before = (coarse(x) - model(x)).mean(0).abs().max()
        correct_biases(model, coarse, layers, x, batch_size=20)
        after = (coarse(x) - model(x)).mean(0).abs().max()
    wanted, got = channel_means(model, layers, x), channel_means(coarse, layers, x)
    assert after < 1e-5 < before
    for name in layers:
        torch.testing.assert_close(got[name], wanted[name], atol=1e-5, rtol=1e-5)


def test_a_layer_without_a_bias_gets_one():
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Conv2d(1, 3, 3, bias=False), nn.Flatten()), torch.rand(9, 1, 5, 5)
    coarse = rounded(model, 2)
    correct_biases(model, coarse, ["0"], x)
    torch.testing.assert_close(coarse[0].bias, (model(x) - coarse[0]._conv_forward(
        x, coarse[0].weight, None).flatten(1)).reshape(9, 3, 9).mean((0, 2)))  # fmt: skip
