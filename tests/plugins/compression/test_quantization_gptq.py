"""GPTQ: the solution of OBQ in a fixed order, and less error in the outputs than rounding to nearest."""

import pytest
import torch
from gated_nets import inputs, small
from torch import nn

from bigopt_plugins.compression.quantization import _gptq
from bigopt_plugins.compression.quantization._gptq import gptq, nearest, output_error
from bigopt_plugins.compression.quantization._hessian import each_layer, execution_order, gram, matrix


def correlated(columns: int, n: int, seed: int = 0) -> torch.Tensor:
    """Inputs ``(columns, n)`` that share a few directions, as activations do."""
    generator = torch.Generator().manual_seed(seed)
    mix = torch.randn(columns, 3, generator=generator)
    return mix @ torch.randn(3, n, generator=generator) + 0.3 * torch.randn(columns, n, generator=generator)


def per_row(weight: torch.Tensor, bits: int, group: int | None = None):
    """Symmetric scales, one a row or one a group of columns, repeated over the columns."""
    high = 2 ** (bits - 1) - 1
    parts = weight.split(group or weight.shape[-1], -1)
    scale = torch.cat([p.abs().amax(-1, keepdim=True).clamp_min(1e-9).expand_as(p) / high for p in parts], -1)
    return scale, torch.zeros_like(scale), -high, high


def obq(weight, hessian, scale, low, high):
    """OBQ with the columns in their order: eq. 2 and 3 of Frantar et al. 2023, the inverse taken anew each time."""
    w, q = weight.double().clone(), torch.zeros_like(weight, dtype=torch.float64)
    for j in range(w.shape[1]):
        inverse = torch.linalg.inv(hessian.double()[j:, j:])
        q[:, j] = (w[:, j] / scale[:, j]).round().clamp(low, high)
        error = (w[:, j] - scale[:, j] * q[:, j]) / inverse[0, 0]
        w[:, j:] -= error[:, None] * inverse[0]
    return q


def test_two_columns_worked_out_by_hand():
    """With H = [[1, c], [c, 1]] the second column gets w₂ + c·(w₁ − q₁)."""
    one = torch.ones(())
    for w2, expected in ((0.2, 1), (0.04, 0)):
        # w₁ = 1.4 is rounded to 1; 0.2 + 0.9·0.4 = 0.56 → 1, and 0.04 + 0.36 = 0.40 → 0
        weight, hessian = torch.tensor([[1.4, w2]]), torch.tensor([[1.0, 0.9], [0.9, 1.0]])
        q = gptq(weight, hessian, one, 0 * one, -7, 7, damping=0.0, order="given")
        assert q.tolist() == [[1, expected]]


@pytest.mark.parametrize("block", [3, 128])
@pytest.mark.parametrize(("bits", "group"), [(2, None), (3, 3), (4, None)])
def test_it_is_obq_in_the_same_order(bits, group, block, monkeypatch):
    monkeypatch.setattr(_gptq, "BLOCK", block)
    torch.manual_seed(bits)
    weight, x = torch.randn(4, 7).double(), correlated(7, 40).double()
    scale, zero, low, high = per_row(weight, bits, group)
    hessian = x @ x.T
    q = gptq(weight, hessian, scale, zero, low, high, damping=0.0, order="given")
    assert torch.equal(q.double(), obq(weight, hessian, scale, low, high))


def test_the_order_of_falling_diagonals_is_a_permutation_of_the_columns():
    torch.manual_seed(0)
    weight, x = torch.randn(4, 6).double(), correlated(6, 40).double()
    scale, zero, low, high = per_row(weight, 3, 2)
    order = (x @ x.T).diagonal().argsort(descending=True)
    q = gptq(weight, x @ x.T, scale, zero, low, high, damping=0.0)
    y = x[order]
    expected = gptq(
        weight[:, order], y @ y.T, scale[:, order], zero[:, order], low, high, damping=0.0, order="given"
    )  # fmt: skip
    assert torch.equal(q[:, order], expected)


@pytest.mark.parametrize("columns", [12, 200])
@pytest.mark.parametrize(("bits", "group"), [(2, None), (3, None), (4, None), (4, 8)])
def test_outputs_are_closer_than_after_rounding_to_nearest(columns, bits, group):
    torch.manual_seed(columns)
    weight, x = torch.randn(16, columns), correlated(columns, 500)
    scale, zero, low, high = per_row(weight, bits, group)
    hessian = x @ x.T
    q = gptq(weight, hessian, scale, zero, low, high)
    assert q.min() >= low and q.max() <= high
    rounded = scale * nearest(weight, scale, zero, low, high)
    ours, theirs = (weight @ x - q * scale @ x).norm(), (weight @ x - rounded @ x).norm()
    assert ours < 0.8 * theirs
    assert output_error(weight, q * scale, hessian) == pytest.approx(float(ours) ** 2, rel=1e-3)


def test_affine_grids_and_one_scale_for_all():
    torch.manual_seed(0)
    weight, x = torch.randn(8, 10) + 1, correlated(10, 100)
    scale = (weight.max() - weight.min()) / 15
    zero = (-weight.min() / scale).round()
    q = gptq(weight, x @ x.T, scale, zero, 0, 15)
    assert q.min() >= 0 and q.max() <= 15
    rounded = scale * (nearest(weight, scale, zero, 0, 15) - zero)
    assert output_error(weight, scale * (q - zero), x @ x.T) < 0.8 * output_error(weight, rounded, x @ x.T)


def test_inputs_that_are_never_seen_round_to_nearest():
    torch.manual_seed(0)
    weight, x = torch.randn(5, 6), correlated(6, 50)
    x[[1, 4]] = 0
    scale, zero, low, high = per_row(weight, 3)
    q = gptq(weight, x @ x.T, scale, zero, low, high)
    assert torch.equal(q[:, [1, 4]].float(), nearest(weight, scale, zero, low, high)[:, [1, 4]])
    nothing = gptq(weight, torch.zeros(6, 6), scale, zero, low, high)
    assert torch.equal(nothing.float(), nearest(weight, scale, zero, low, high))


LAYERS = {
    "linear": (nn.Linear(6, 5), (4, 7, 6)),
    "plain": (nn.Conv2d(3, 5, 3, padding=1), (4, 3, 6, 7)),
    "strided": (nn.Conv2d(3, 5, (3, 2), stride=(2, 1), padding=(1, 0), dilation=(1, 2)), (4, 3, 6, 7)),
    "grouped": (nn.Conv2d(4, 6, 3, groups=2), (4, 4, 6, 6)),
    "depthwise": (nn.Conv2d(4, 4, 3, padding="same", groups=4), (4, 4, 6, 6)),
    "reflecting": (nn.Conv2d(2, 3, 3, padding=1, padding_mode="reflect"), (4, 2, 6, 6)),
    "one_dimensional": (nn.Conv1d(3, 4, 3, padding=2, dilation=2), (4, 3, 9)),
}


@pytest.mark.parametrize("kind", list(LAYERS))
def test_the_hessian_measures_the_layers_output(kind):
    """tr(W·XXᵀ·Wᵀ) is the squared output without the bias."""
    layer, shape = LAYERS[kind]
    x = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    hessian, count = gram(layer, x)
    with torch.no_grad():
        bias = layer.bias.reshape((-1, *[1] * (len(shape) - 2)) if kind != "linear" else (-1,))
        out = layer(x) - bias
    weight = matrix(layer)
    assert output_error(weight, torch.zeros_like(weight), hessian) == pytest.approx(float((out**2).sum()), rel=1e-4)
    assert count == out.numel() // len(layer.weight)


@pytest.mark.parametrize("topology", ["sequential", "depthwise", "vit", "bert"])
def test_layer_by_layer_the_whole_model_stays_closer_than_with_rounding_to_nearest(topology):
    model, x = small(topology), inputs(topology, 64)
    layers = [n for n, m in model.named_modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    with torch.no_grad():
        before = model(x)
    errors = {}
    for method in ("gptq", "nearest"):
        rounded = small(topology)

        def act(_name, layer, hessian, method=method):
            weight = matrix(layer)
            scale, zero, low, high = per_row(weight, 4)
            solve = gptq(weight, hessian, scale, zero, low, high)
            integers = solve if method == "gptq" else nearest(weight, scale, zero, low, high)
            weight.copy_(integers * scale)

        each_layer(rounded, layers, x, act, batch_size=32)
        with torch.no_grad():
            errors[method] = (rounded(x) - before).norm().item()
    assert 0 < errors["gptq"] < errors["nearest"]


def test_layers_come_in_the_order_of_execution_and_see_what_earlier_ones_gave():
    class Backwards(nn.Module):
        def __init__(self):
            super().__init__()
            self.last, self.unused, self.first = nn.Linear(3, 2), nn.Linear(9, 9), nn.Linear(2, 3)
            self.twice = nn.Linear(3, 3)

        def forward(self, x):
            return self.last(self.twice(self.twice(self.first(x))))

    torch.manual_seed(0)
    model, x = Backwards(), torch.rand(10, 2)
    assert execution_order(model, ["last", "unused", "first", "twice"], x) == {"first": 1, "twice": 2, "last": 1}
    seen = []

    def act(name, layer, hessian):
        seen.append((name, hessian))
        with torch.no_grad():
            layer.weight.zero_()
            layer.bias.fill_(2.0)

    each_layer(model, ["last", "first"], x, act, batch_size=4)
    assert [name for name, _ in seen] == ["first", "last"]
    torch.testing.assert_close(seen[0][1], ((x.T @ x) / 10).double()[None], rtol=1e-5, atol=1e-6)
    with torch.no_grad():
        given = model.twice(model.twice(torch.full((1, 3), 2.0)))
    torch.testing.assert_close(seen[1][1][0], (given.T @ given).double(), rtol=1e-5, atol=1e-6)
