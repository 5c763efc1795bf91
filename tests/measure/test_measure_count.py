from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from measure_nets import IMAGE, Residual
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrize, prune

from bigopt.measure import count


def lenet5() -> nn.Sequential:
    """LeCun et al. 1998, on 28×28 with padding: 61,706 parameters and 416,520 MACs."""
    return nn.Sequential(
        nn.Conv2d(1, 6, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(400, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, 10),
    )  # fmt: skip


def test_lenet5() -> None:
    counts = count(lenet5(), torch.zeros(1, 1, 28, 28))
    assert (counts.parameters, counts.macs, counts.bops) == (61_706, 416_520, 426_516_480)
    assert counts.weight_bits == 32
    assert [(layer.name, layer.macs) for layer in counts.layers] == [
        ("0", 6 * 28 * 28 * 25), ("3", 16 * 10 * 10 * 6 * 25), ("7", 400 * 120), ("9", 120 * 84), ("11", 84 * 10),
    ]  # fmt: skip


class Attending(nn.Module):
    """Fused attention of 2 heads over 5 tokens of 8 features."""

    def forward(self, x: Tensor) -> Tensor:
        heads = x.reshape(len(x), 5, 2, 4).transpose(1, 2)
        return functional.scaled_dot_product_attention(heads, heads, heads)


class Last(nn.LSTM):
    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
        return super().forward(x)[0]


class Own(nn.MultiheadAttention):
    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
        return super().forward(x, x, x, need_weights=False)[0]


ATTENTION = 5 * 5 * 8 + 5 * 5 * 8  # scores, then their means over the values
TOKENS = (5, 8)


@pytest.mark.parametrize(
    ("build", "shape", "macs"),
    [
        (lambda: nn.Conv2d(3, 8, 3, stride=2), (3, 9, 9), 8 * 4 * 4 * 3 * 9),
        (lambda: nn.Conv2d(8, 8, 3, padding=1, groups=4), (8, 6, 6), 8 * 6 * 6 * 2 * 9),
        (lambda: nn.Conv2d(8, 8, 3, padding=1, groups=8), (8, 6, 6), 8 * 6 * 6 * 9),
        (lambda: nn.ConvTranspose2d(4, 6, 2, stride=2), (4, 5, 5), 4 * 5 * 5 * 6 * 4),
        (lambda: nn.Conv1d(2, 4, 3), (2, 10), 4 * 8 * 2 * 3),
        (lambda: nn.Linear(8, 3), TOKENS, 5 * 8 * 3),
        (Attending, TOKENS, ATTENTION),
        (lambda: Own(8, 2, batch_first=True), TOKENS, 5 * 8 * 24 + ATTENTION + 5 * 8 * 8),
        (
            lambda: nn.TransformerEncoderLayer(8, 2, 16, batch_first=True),
            TOKENS,
            5 * 8 * 24 + ATTENTION + 5 * 8 * 8 + 2 * 5 * 8 * 16,
        ),
        (lambda: Last(8, 6, batch_first=True), TOKENS, 5 * 4 * 6 * (8 + 6)),
        (lambda: nn.BatchNorm2d(4), (4, 5, 5), 0),
    ],
)
def test_macs_by_hand(build: Callable[[], nn.Module], shape: tuple[int, ...], macs: int) -> None:
    model = build()
    assert count(model, torch.zeros(3, *shape)).macs == macs
    assert model.training and not any(module._forward_hooks for module in model.modules())


def test_an_exported_graph_counts_as_its_model() -> None:
    net = Residual().eval()
    graph = torch.export.export(net, (torch.rand(1, 1, 8, 8),), strict=False).module()
    eager, exported = count(net, IMAGE), count(graph, IMAGE)
    assert (eager.macs, eager.parameters) == (4 * 64 * 9 + 4 * 64 * 4 * 9 + 4 * 3, 40 + 8 + 148 + 15)
    assert (exported.macs, exported.parameters, exported.nonzero) == (eager.macs, eager.parameters, eager.nonzero)


def test_integers_count_as_parameters_with_their_width(quantized: nn.Module) -> None:
    counts = count(quantized, IMAGE)
    weights, biases = 8 * 9 + 8 * 8 * 9 + 128 * 3, 8 + 8 + 3
    assert counts.parameters == weights + biases
    assert counts.macs == 8 * 64 * 9 + 8 * 64 * 72 + 128 * 3
    assert counts.bops == counts.macs * 8 * 8
    assert counts.weight_bits == pytest.approx((8 * weights + 32 * biases) / (weights + biases))


class FourBits(nn.Module):
    """A linear layer whose weights are integers from -8 to 7 with a zero point in each row."""

    def __init__(self) -> None:
        super().__init__()
        import torch.ao.quantization.fx._decomposed  # noqa: F401  (registers the operators)

        self.register_buffer("weight", torch.tensor([[1, 1, 5, -8], [-2, -2, -2, 0]], dtype=torch.int8))
        self.register_buffer("scale", torch.tensor([0.5, 0.25]))
        self.register_buffer("zero", torch.tensor([1, -2]))

    def forward(self, x: Tensor) -> Tensor:
        dequantize = torch.ops.quantized_decomposed.dequantize_per_channel
        weight = dequantize(self.weight, self.scale, self.zero, 0, -8, 7, torch.int8)
        return functional.linear(x, weight)


def test_what_stands_for_zero_is_no_nonzero() -> None:
    graph = torch.export.export(FourBits(), (torch.zeros(1, 4),)).module()
    counts = count(graph, torch.zeros(1, 4))
    assert (counts.parameters, counts.nonzero, counts.macs) == (8, 3, 8)
    assert (counts.weight_bits, counts.bops) == (4, 8 * 4 * 32)


def test_bits_given_by_layer_or_for_all() -> None:
    example = torch.zeros(1, 1, 28, 28)
    assert count(lenet5(), example, (8, 8)).bops == 416_520 * 64
    mixed = count(lenet5(), example, {"0": (8, 4), "1?": (2, 8)})
    widths = [(layer.weight_bits, layer.activation_bits) for layer in mixed.layers]
    assert widths == [(8, 4), (32, 32), (32, 32), (32, 32), (2, 8)]


def test_fake_quantizers_tell_the_width() -> None:
    class Fake(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            weight = torch.fake_quantize_per_tensor_affine(self.weight, 0.1, 0, -8, 7)
            return functional.linear(torch.fake_quantize_per_tensor_affine(x, 0.1, 0, 0, 255), weight)

    assert count(Fake(4, 2, bias=False), torch.zeros(1, 4)).bops == 8 * 4 * 8


def test_masks_show_in_the_nonzeros_only() -> None:
    layer = nn.Linear(10, 10)
    nn.init.ones_(layer.bias)
    prune.l1_unstructured(layer, "weight", amount=0.7)
    counts = count(layer, torch.zeros(1, 10))
    assert (counts.parameters, counts.nonzero) == (110, 40)


def test_parametrised_weights_are_seen_as_computed() -> None:
    class Upper(nn.Module):
        def forward(self, weight: Tensor) -> Tensor:
            return weight.triu()

    layer = nn.Linear(4, 4, bias=False)
    parametrize.register_parametrization(layer, "weight", Upper())
    counts = count(layer, torch.zeros(1, 4))
    assert (counts.parameters, counts.nonzero) == (16, 10)


def test_shared_weights_count_once() -> None:
    net = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    net[1].weight = net[0].weight
    assert count(net, torch.zeros(1, 4)).parameters == 16 + 4 + 4


def test_modes_and_settings_are_as_before() -> None:
    fast, mkldnn = torch.backends.mha.get_fastpath_enabled(), torch.backends.mkldnn.enabled
    net = Residual().train()
    mean = net.norm.running_mean.clone()
    count(net, IMAGE)
    assert net.training and torch.equal(net.norm.running_mean, mean)
    assert (torch.backends.mha.get_fastpath_enabled(), torch.backends.mkldnn.enabled) == (fast, mkldnn)
