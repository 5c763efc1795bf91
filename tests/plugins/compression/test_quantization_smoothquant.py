"""SmoothQuant: the same outputs, with ranges that have moved from activations to weights."""

import pytest
import torch
from gated_nets import inputs, small
from torch import nn

from bigopt_plugins.compression.quantization._smoothquant import SmoothedLinear, find, smooth, smoothing_factors

VIT = "net.vit.layers.0."
BERT = "net.bert.encoder.layer.0."


def with_outliers(topology):
    """Three channels of each norm speak 30 times louder."""
    model = small(topology)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.LayerNorm):
                module.weight.uniform_(0.5, 1.5)
                module.bias.normal_(0, 0.3)
                module.weight[:3] *= 30
    return model


def input_ranges(model, x):
    seen = {}
    handles = [
        module.register_forward_pre_hook(
            lambda _m, i, name=name: seen.update({name: i[0].abs().flatten(0, -2).amax(0)})
        )
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear)
    ]
    with torch.no_grad():
        model(x)
    for handle in handles:
        handle.remove()
    return seen


def test_factors_are_equation_4():
    activations = torch.tensor([16.0, 1.0, 0.0])
    weights = [torch.tensor([[1.0, -4.0, 1.0]]), torch.tensor([[-0.25, 1.0, 1.0]])]
    torch.testing.assert_close(smoothing_factors(activations, weights, 0.5)[:2], torch.tensor([4.0, 0.5]))
    torch.testing.assert_close(smoothing_factors(activations, weights, 1.0)[:2], torch.tensor([16.0, 1.0]))
    torch.testing.assert_close(smoothing_factors(activations, weights, 0.0)[:2], torch.tensor([1.0, 0.25]))


@pytest.mark.parametrize("alpha", [0.3, 0.5, 0.8])
@pytest.mark.parametrize("topology", ["vit", "bert"])
def test_the_outputs_stay(topology, alpha):
    model, x = with_outliers(topology), inputs(topology)
    with torch.no_grad():
        before = model(x)
        smooth(model, x, alpha, batch_size=5)
        torch.testing.assert_close(model(x), before, atol=1e-5, rtol=1e-5)


def test_a_pre_norm_block_takes_the_factors_into_its_norms():
    model, x = with_outliers("vit"), inputs("vit")
    before = input_ranges(model, x)
    groups = smooth(model, x, 0.5)
    inside = [group for group in groups if len(group.linears) == 3 or "layernorm_after" in group.norm]
    assert len(inside) == 2 and all(group.folded for group in inside)
    after = input_ranges(model, x)
    for group in inside:
        for name in group.linears:
            assert before[name].max() / before[name].median() > 10
            # with α = 1/2 a channel and the weights that read it end with the same range
            used = torch.stack([model.get_submodule(n).weight.abs().amax(0) for n in group.linears]).amax(0)
            torch.testing.assert_close(after[name], used, rtol=1e-4, atol=1e-6)
            assert after[name].max() / after[name].median() < 0.4 * before[name].max() / before[name].median()
    assert not any(isinstance(module, SmoothedLinear) for name, module in model.named_modules() if "layers" in name)


def test_a_norm_that_a_residual_reads_as_well_keeps_its_scale():
    model, x = with_outliers("bert"), inputs("bert")
    norms = {name: m.weight.detach().clone() for name, m in model.named_modules() if isinstance(m, nn.LayerNorm)}
    groups = {group.norm: group for group in smooth(model, x, 0.5)}
    first = groups["net.bert.embeddings.LayerNorm"]
    assert not first.folded
    assert set(first.linears) == {f"{BERT}attention.self.{name}" for name in ("query", "key", "value")}
    for name, weight in norms.items():
        if not (name in groups and groups[name].folded):
            assert torch.equal(model.get_submodule(name).weight, weight)
    layer = model.get_submodule(first.linears[0])
    assert isinstance(layer, SmoothedLinear)
    seen = {}
    layer.weight.register_hook(lambda grad: seen.update(grad=grad))
    model(x).sum().backward()
    assert seen["grad"].abs().sum() > 0


def test_with_alpha_1_all_channels_have_range_1():
    model, x = with_outliers("vit"), inputs("vit")
    groups = smooth(model, x, 1.0)
    after = input_ranges(model, x)
    for group in groups:
        if group.folded:
            torch.testing.assert_close(after[group.linears[0]], torch.ones(16), rtol=1e-4, atol=1e-4)


def test_convolutional_nets_have_nothing_to_smooth():
    assert find(small("residual"), inputs("residual")[:2]) == []


@pytest.mark.parametrize("topology", ["vit", "bert"])
def test_int8_inputs_lose_less(topology):
    """One scale per tensor for what the linear layers read, one per tensor for their weights."""
    errors = []
    for smoothed in (False, True):
        model, x = with_outliers(topology), inputs(topology, 64)
        with torch.no_grad():
            before = model(x)
        names = [name for group in find(model, x[:2]) for name in group.linears]
        if smoothed:
            smooth(model, x, 0.5)
        ranges = input_ranges(model, x)

        def rounded(layer, given, name, ranges=ranges):
            scale = ranges[name].max() / 15
            if isinstance(layer, SmoothedLinear):
                factors = layer.reciprocal
                scale = (ranges[name] * factors).max() / 15
                return ((given[0] * factors / scale).round() * scale / factors,)
            return ((given[0] / scale).round() * scale,)

        for name in names:
            layer = model.get_submodule(name)
            layer.register_forward_pre_hook(lambda layer, given, name=name: rounded(layer, given, name))
        with torch.no_grad():
            errors.append((model(x) - before).norm().item())
    assert errors[1] < 0.7 * errors[0]
