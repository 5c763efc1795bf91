"""Cross-layer equalisation: equal ranges afterwards, equal outputs, and nothing across a residual."""

import copy
import math

import pytest
import torch
from gated_nets import inputs, small
from pipeline.small_nets import inputs as model_inputs
from pipeline.small_nets import trained
from torch import nn

from bigopt.vocabulary.network import Network
from bigopt_plugins.compression.quantization._equalisation import ChannelClip, column_ranges, equalise, row_ranges
from bigopt_plugins.compression.quantization._folding import fold_norms


def outputs(model, x):
    with torch.no_grad():
        return model(x)


def unbalanced(model, seed=0):
    """Channels of very different ranges, as batch norms that are folded leave them."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                factor = torch.exp2(4 * torch.rand(len(module.weight), generator=generator) - 2)
                module.weight.mul_(factor.reshape(-1, *[1] * (module.weight.ndim - 1)))
    return model.eval()


def test_two_layers_meet_at_the_geometric_mean():
    """Equation 10: s = √(r₁ r₂) / r₂, worked out by hand."""
    model = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 1))
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[8.0, -2.0], [0.5, 0.25]]))
        model[0].bias.copy_(torch.tensor([1.0, -3.0]))
        model[2].weight.copy_(torch.tensor([[2.0, -32.0]]))
    assert equalise(model, torch.rand(2, 2)).chains == [("0", "2")]
    # ranges 8 and 2 meet at 4, 0.5 and 32 at 4
    torch.testing.assert_close(model[0].weight, torch.tensor([[4.0, -1.0], [4.0, 2.0]]))
    torch.testing.assert_close(model[0].bias, torch.tensor([0.5, -24.0]))
    torch.testing.assert_close(model[2].weight, torch.tensor([[4.0, -4.0]]))


@pytest.mark.parametrize("topology", ["sequential", "residual", "concatenating", "depthwise", "vit", "bert"])
def test_folding_and_equalising_leave_the_outputs(topology):
    model, x = small(topology), inputs(topology)
    before = outputs(model, x)
    fold_norms(model, x[:2])
    torch.testing.assert_close(outputs(model, x), before, atol=1e-5, rtol=1e-5)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in model.modules())
    unbalanced(model)
    before = outputs(model, x)
    equalise(model, x[:2])
    scale = max(1.0, before.abs().max().item())
    torch.testing.assert_close(outputs(model, x) / scale, before / scale, atol=1e-5, rtol=0)


def test_folded_weights_are_the_papers():
    torch.manual_seed(0)
    layer, norm = nn.Conv2d(2, 3, 3, bias=False), nn.BatchNorm2d(3)
    with torch.no_grad():
        norm.weight.copy_(torch.tensor([2.0, -1.0, 0.5]))
        norm.bias.copy_(torch.tensor([0.1, 0.2, 0.3]))
        norm.running_mean.copy_(torch.tensor([1.0, 2.0, 3.0]))
        norm.running_var.copy_(torch.tensor([4.0, 1.0, 0.25]))
    w = layer.weight.detach().clone()
    model = nn.Sequential(layer, norm, nn.Flatten()).eval()
    assert fold_norms(model, torch.rand(2, 2, 5, 5)) == ["0"]
    factor = torch.tensor([2.0, -1.0, 0.5]) / (torch.tensor([4.0, 1.0, 0.25]) + 1e-5).sqrt()
    torch.testing.assert_close(layer.weight, w * factor.reshape(-1, 1, 1, 1))
    torch.testing.assert_close(layer.bias, torch.tensor([0.1, 0.2, 0.3]) - factor * torch.tensor([1.0, 2.0, 3.0]))


def test_a_depthwise_chain_ends_with_one_range_for_all_three():
    model, x = small("depthwise"), inputs("depthwise")
    fold_norms(model, x[:2])
    unbalanced(model)
    first, depth, last = (copy.deepcopy(model.net.get_submodule(n)[0]) for n in ("stem", "depth", "point"))
    wanted = (row_ranges(first) * row_ranges(depth) * column_ranges(last, 8)) ** (1 / 3)
    alone = copy.deepcopy(model)
    equalise(alone, x[:2], ignore=["net.head"])
    for ranges in (
        row_ranges(alone.net.stem[0]), row_ranges(alone.net.depth[0]), column_ranges(alone.net.point[0], 8),
    ):  # fmt: skip
        torch.testing.assert_close(ranges, wanted, rtol=1e-4, atol=0)
    result = equalise(model, x[:2])
    assert result.chains == [("net.stem.0", "net.depth.0", "net.point.0"), ("net.point.0", "net.head")]
    assert result.clips == ["net.stem.2", "net.depth.2", "net.point.2"]
    assert isinstance(model.net.stem[2], ChannelClip)
    torch.testing.assert_close(row_ranges(model.net.stem[0]), row_ranges(model.net.depth[0]), rtol=1e-4, atol=0)
    torch.testing.assert_close(row_ranges(model.net.stem[0]), column_ranges(model.net.point[0], 8), rtol=1e-4, atol=0)
    torch.testing.assert_close(row_ranges(model.net.point[0]), column_ranges(model.net.head, 6), rtol=1e-4, atol=0)


def test_clips_follow_their_channels_where_a_relu6_saturates():
    model, x = small("depthwise"), 40 * inputs("depthwise")
    fold_norms(model, x[:2])
    seen = {}
    model.net.stem[0].register_forward_hook(lambda _m, _i, out: seen.update(stem=out))
    before = outputs(model, x)
    assert (seen["stem"] > 6).any()
    equalise(model, x[:2])
    torch.testing.assert_close(outputs(model, x), before, atol=1e-5, rtol=1e-5)
    assert model.net.stem[2].limit.std() > 0.01


def test_a_channel_read_by_a_residual_addition_stays():
    model, x = small("residual"), inputs("residual")
    fold_norms(model, x[:2])
    assert equalise(model, x[:2]).chains == [("net.inner.0", "net.outer.0")]


def test_mobilenet_chains_stop_at_every_addition():
    model, x = trained("mobilenet").eval(), model_inputs("mobilenet")
    fold_norms(model, x[:2])
    before = outputs(model, x)
    chains = equalise(model, x[:2]).chains
    inner = ("net.blocks.4.body.expand.conv", "net.blocks.4.body.depthwise.conv", "net.blocks.4.body.project.conv")
    assert inner in chains
    added = {"net.blocks.1.body.project.conv", "net.blocks.2.body.project.conv"}
    assert not added & {chain[0] for chain in chains}
    torch.testing.assert_close(outputs(model, x), before, atol=1e-5, rtol=1e-5)


class Awkward(nn.Module):
    """A flattened image, a grouped convolution, a layer that is read twice, and a linear layer over the width."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(1, 4, 3, padding=1)
        self.grouped = nn.Conv2d(4, 6, 1, groups=2)
        self.wide = nn.Linear(6, 6)
        self.second = nn.Conv2d(6, 4, 1)
        self.fc = nn.Linear(4 * 9, 5)
        self.shared = nn.Linear(5, 5)
        self.head = nn.Linear(5, 3)

    def forward(self, x):
        x = torch.relu(self.grouped(torch.relu(self.first(x))))
        x = nn.functional.max_pool2d(torch.relu(self.second(self.wide(x))), 2).flatten(1)
        x = torch.relu(self.fc(x))
        return self.head(torch.relu(self.shared(torch.relu(self.shared(x)))))


def test_grouped_and_flattened_channels_are_told_and_shared_layers_left():
    torch.manual_seed(0)
    model, x = unbalanced(Network(Awkward())), torch.rand(5, 1, 6, 6)
    before = outputs(model, x)
    assert equalise(model, x[:2]).chains == [("net.first", "net.grouped"), ("net.second", "net.fc")]
    torch.testing.assert_close(outputs(model, x), before, atol=1e-5, rtol=1e-5)
    net = model.net
    torch.testing.assert_close(row_ranges(net.first), column_ranges(net.grouped, 4), rtol=1e-4, atol=0)
    torch.testing.assert_close(row_ranges(net.second), column_ranges(net.fc, 4), rtol=1e-4, atol=0)
    assert column_ranges(net.fc, 4)[1] == net.fc.weight[:, 9:18].abs().max()


def test_a_functional_relu6_is_named_and_left():
    class Functional(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Conv2d(1, 3, 1), nn.Conv2d(3, 2, 1)

        def forward(self, x):
            return self.b(nn.functional.relu6(self.a(x))).mean((2, 3))

    model = Network(Functional()).eval()
    result = equalise(model, torch.rand(2, 1, 4, 4))
    assert result.chains == [] and "ReLU6" in result.left["net.a"]


def test_a_dead_channel_does_not_blow_up():
    model = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1))
    with torch.no_grad():
        model[0].weight[1] = 0
        model[0].weight[2] = 1e-9
    bias = model[0].bias.detach().clone()
    equalise(model, torch.rand(2, 2))
    assert model[0].bias[1:].tolist() == bias[1:].tolist()
    assert math.isfinite(model[2].weight.abs().max().item())
