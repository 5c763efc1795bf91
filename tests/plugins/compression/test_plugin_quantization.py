"""Quantization: golden values, what becomes integers, and that the file is small, fused and the model in memory."""

import subprocess
import sys
from collections import Counter

import onnx
import onnxruntime
import pytest
import torch
from gated_nets import inputs, small
from torch import nn
from train.train_fakes import data, make_run

from bigopt.measure import count, export_onnx
from bigopt.measure._count_onnx import count_onnx
from bigopt.measure.session import Session
from bigopt.pipeline.notes import Collected
from bigopt.train import Fitter
from bigopt.vocabulary.errors import RequestError
from bigopt.vocabulary.network import Network
from bigopt.vocabulary.part import Part
from bigopt.vocabulary.run import recording
from bigopt.vocabulary.settings import StepOptions
from bigopt_plugins.compression.quantization import _lsq
from bigopt_plugins.compression.quantization._build import Recipe, build
from bigopt_plugins.compression.quantization._calibration import steps
from bigopt_plugins.compression.quantization._calls import survey
from bigopt_plugins.compression.quantization._grid import Grid, activation_grid, fake, rows_of, weight_grid
from bigopt_plugins.compression.quantization._lsq import gradient_scale, learned, learned_fake
from bigopt_plugins.compression.quantization._plan import make_plan
from bigopt_plugins.compression.quantization.plugin import Quantization

NO_FIT = lambda *a, **k: None  # noqa: E731


def run_of(tmp_path, model, x=None):
    dataset = data(image=True)
    if x is not None:
        dataset.train.x, dataset.train.y = x, torch.zeros(len(x), dtype=torch.int64)
    run = make_run(tmp_path, model, dataset)
    run.report = Collected()
    return run


def exported(graph, x, tmp_path):
    """The file, its logits, and the operators that ONNX Runtime makes of it."""
    path = export_onnx(graph, x[:3], tmp_path / "model.onnx")
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath, options.log_severity_level = str(tmp_path / "optimized.onnx"), 3
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    kinds = Counter(node.op_type for node in onnx.load(tmp_path / "optimized.onnx").graph.node)
    return path, torch.from_numpy(session.run(None, {"input": x.numpy()})[0]), kinds


def agreement(a, b):
    """Share of the same answers, among those that are no ties."""
    best = b.topk(2).values
    sure = best[:, 0] - best[:, 1] > 1e-6
    assert sure.float().mean() > 0.9
    return (a.argmax(1) == b.argmax(1))[sure].float().mean().item()


# ---- integers and ranges


@pytest.mark.parametrize(
    ("grid", "low", "high"),
    [
        (weight_grid(8, True), -127, 127),
        (weight_grid(8, True, reduce_range=True), -63, 63),
        (weight_grid(8, False), -128, 127),
        (weight_grid(4, True), -8, 7),
        (weight_grid(2, False), -2, 1),
        (activation_grid(4), 0, 15),
    ],
    ids=["w8", "w7", "w8-affine", "w4", "w2", "a4"],
)
def test_grids(grid, low, high):
    assert (grid.low, grid.high) == (low, high)
    assert grid.bits == {63: 8, 127: 8, 7: 4, 1: 2, 15: 4}[high]


def test_affine_integers_by_hand():
    x = torch.tensor([[-1.0, 0.0, 0.5, 2.0]])
    step, zero = steps(x, activation_grid(2), "minmax")
    assert step.item() == 1.0 and zero.item() == 1.0
    assert fake(x, step, zero, activation_grid(2)).tolist() == [[-1.0, 0.0, 1.0, 2.0]]  # half goes to even: 1.5 to 2


def test_the_least_squared_error_is_found():
    x = torch.cat([torch.randn(4000, generator=torch.Generator().manual_seed(0)), torch.tensor([20.0])])[None]
    grid = weight_grid(4, True)
    error = {}
    for method in ("minmax", "mse", "percentile"):
        error[method] = (fake(x, *steps(x, grid, method, 99.9), grid) - x).square().mean().item()
    tried = [
        (fake(x, torch.tensor([[s]]), torch.zeros(1, 1), grid) - x).square().mean().item()
        for s in torch.linspace(0.15, 3, 300)
    ]
    assert error["mse"] < 1.02 * min(tried)
    assert error["mse"] < error["percentile"] < error["minmax"]


def test_percentile_leaves_the_outermost_out():
    x = torch.arange(-100.0, 101.0)[None]
    step, _ = steps(x, Grid(-100, 100, True), "percentile", 90)
    assert step.item() == pytest.approx(0.9)


def test_rows_share_a_step():
    weight = torch.arange(24.0).reshape(2, 3, 2, 2)
    assert rows_of(weight, "per_tensor", 4).shape == (1, 24)
    assert rows_of(weight, "per_channel", 4).shape == (2, 12)
    assert rows_of(weight, "per_group", 4)[3].tolist() == [12.0, 13.0, 14.0, 15.0]


# ---- learned steps


def test_gradients_are_the_papers():
    x = torch.tensor([-3.0, -0.6, 0.3, 0.74, 5.0], requires_grad=True)
    step = torch.tensor([0.5], requires_grad=True)
    out = learned_fake(x, step, torch.zeros(1), -2, 3, 0.25)
    assert out.tolist() == [-1.0, -0.5, 0.5, 0.5, 1.5]
    out.backward(torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0]))
    assert x.grad.tolist() == [0.0, 2.0, 3.0, 4.0, 0.0]
    # eq. 3: -Q_N below, round(v) - v within, Q_P above; v = -1.2, 0.6, 1.48
    expected = 0.25 * (1 * -2 + 2 * (-1 + 1.2) + 3 * (1 - 0.6) + 4 * (1 - 1.48) + 5 * 3)
    assert step.grad.item() == pytest.approx(expected, rel=1e-6)
    assert gradient_scale(100, 7) == pytest.approx(1 / 700**0.5)


COMPILED = """
import torch
from bigopt_plugins.compression.quantization._lsq import compiled, gradients, rounded

torch.manual_seed(0)
for shape, steps, zero, low, high in (((8, 4, 6, 6), (1,), 3.0, 0.0, 255.0), ((6, 36), (6, 1), 0.0, -8.0, 7.0)):
    x, grad = torch.randn(shape), torch.randn(shape)
    step, zeros = torch.rand(steps) * 0.02 + 0.01, torch.full(steps, zero)
    forward, backward = compiled()
    assert torch.equal(forward(x, step, zeros, low, high), rounded(x, step, zeros, low, high))
    for one, other in zip(backward(grad, x, step, zeros, low, high), gradients(grad, x, step, zeros, low, high)):
        assert torch.allclose(one, other, rtol=1e-4, atol=1e-5)
"""


def test_compiled_loops_round_and_derive_as_eager_ones_do():
    """In a process of its own: the compiler wants setuptools before anything has imported distutils."""
    found = subprocess.run([sys.executable, "-c", COMPILED], capture_output=True, text=True)
    assert found.returncode == 0, found.stderr


def test_a_compiled_network_rounds_in_loops_and_says_the_same(tmp_path, monkeypatch):
    used = []

    def noted(function):
        return lambda *args: used.append(function) or function(*args)

    monkeypatch.setattr(_lsq, "compiled", lambda: (noted(_lsq.rounded), noted(_lsq.gradients)))
    run = run_of(tmp_path, small("residual"))
    part = Quantization(bits=3, activation_bits=3, mode="qat")
    part.prepare(run, NO_FIT)
    network, x = run.model.eval(), run.data.train.take(torch.arange(8))
    eager = network(x)
    assert not used
    logits = network.compiled()(x)
    logits.sum().backward()
    assert torch.equal(eager, logits) and set(used) == {_lsq.rounded, _lsq.gradients}


def test_plain_sgd_on_the_ratio_moves_the_step_as_in_the_paper():
    start, ratio = torch.tensor([0.02]), torch.ones(1, requires_grad=True)
    (learned(start, ratio) * 3.0).backward()  # dL/ds = 3
    assert (start * (ratio - 0.1 * ratio.grad)).item() == pytest.approx(0.02 - 0.1 * 3.0, rel=1e-5)


def test_training_moves_weights_and_steps_and_keeps_hooks(tmp_path):
    run = run_of(tmp_path, small("residual"))
    names = set(dict(run.model.named_parameters()))
    part = Quantization(bits=3, activation_bits=3, mode="qat")
    part.prepare(run, NO_FIT)
    assert names <= set(dict(run.model.named_parameters()))
    start = {name: p.detach().clone() for name, p in run.model.named_parameters()}

    class Feature(Part):
        def taps(self, run):
            return ["net.inner"]

        def loss(self, run, batch, output):
            return {"feature": 0.01 * output.taps["net.inner"].square().mean()}

    Fitter(tmp_path)(run, 1, lr=1e-2, parts=[Feature(), part])
    still = {name for name, p in run.model.named_parameters() if torch.equal(p, start[name])}
    assert not still
    assert run.history[-1].epochs[0]["train/feature"] > 0
    with torch.no_grad(), recording(run.model, ["net.inner"]) as seen:
        run.model(run.data.val.x)
    assert all(len(channel.unique()) <= 8 for channel in [seen["net.inner"]])  # what a tap sees is rounded


# ---- what is rounded


def test_plan_of_a_residual_net():
    model = small("residual")
    calls, output = survey(model, inputs("residual"))
    plan = make_plan(model, calls, output, ["net.head"])
    assert {name: layer.norm for name, layer in plan.layers.items()} == {
        "net.stem.0": "net.stem.1", "net.inner.0": "net.inner.1", "net.outer.0": "net.outer.1"
    }  # fmt: skip
    rounded = [key.split(":")[1] if ":" in key else key for key in plan.activations]
    # the input, behind the activation functions, and what the addition takes; the mean is read in float
    assert rounded == ["input", "relu", "relu", "batch_norm", "relu"]
    assert plan.left == {"net.head": "it matches ignore"}


def test_norms_with_negative_scales_fold_exactly():
    model = small("residual")
    with torch.no_grad():
        model.net.stem[1].weight[::2] *= -1
        x = inputs("residual")
        before = model(x)
    with torch.no_grad():
        network, _ = build(model, x, Recipe(8, keep_norms=False), 0)
        network.state = "float"
        assert (network(x) - before).abs().max() < 1e-5
    assert network.folded == {"net.stem.1", "net.inner.1", "net.outer.1"}


def test_calibration_reads_training_samples_only(tmp_path):
    class Forbidden:
        in_memory = True

        def __len__(self):
            return 32

        def take(self, index):
            raise AssertionError("validation was read")

    run = run_of(tmp_path, small("sequential"))
    run.data.val = run.data.test = Forbidden()
    Quantization(mode="qat").prepare(run, NO_FIT)


def test_layers_that_cannot_be_handled_are_named(tmp_path):
    class Odd(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.cell, self.last = nn.Linear(36, 8), nn.LSTM(8, 8, batch_first=True), nn.Linear(8, 3)

        def forward(self, x):
            return self.last(self.cell(self.first(x.flatten(1))[:, None])[0][:, 0])

    run = run_of(tmp_path, Network(Odd()))
    Quantization(mode="qat").prepare(run, NO_FIT)
    assert any("net.cell" in note and "LSTM" in note for note in run.report.notes)
    run = run_of(tmp_path, Network(Odd()))
    run.options = StepOptions(strict=True)
    with pytest.raises(RequestError, match=r"net\.cell"):
        Quantization(mode="qat").prepare(run, NO_FIT)


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("bits", {"bits": 1}),
        ("bits", {"bits": 9}),
        ("mode", {"mode": "magic"}),
        ("activation_bits", {"mode": "weight_only", "activation_bits": 8}),
        ("activation_bits", {"mode": "dynamic", "activation_bits": 4}),
        ("calibration", {"calibration": "min_max"}),
        ("percentile", {"percentile": 10.0}),
        ("samples", {"samples": 0}),
        ("granularity", {"granularity": "per_row"}),
        ("group_size", {"group_size": 1}),
    ],
    ids=str,
)
def test_arguments_out_of_range(name, arguments):
    with pytest.raises(RequestError, match=name):
        Quantization(**arguments)


# ---- the file

FILES = {
    "cnn-w4a8-per_tensor": ("sequential", {"bits": 4, "granularity": "per_tensor"}, {"QLinearConv": 2, "QGemm": 2}),
    "resnet-w8a8": ("residual", {"bits": 8, "reduce_range": True}, {"QLinearConv": 3, "QLinearAdd": 1, "QGemm": 1}),
    "resnet-w4a4-qat": (
        "residual",
        {"bits": 4, "activation_bits": 4, "mode": "qat"},
        {"QLinearConv": 3, "QLinearAdd": 1, "QGemm": 1},
    ),
    "mobilenet-w8-dynamic": ("depthwise", {"mode": "dynamic", "reduce_range": True}, {"ConvInteger": 3}),
    "vit-w6a8-affine": ("vit", {"bits": 6, "symmetric": False}, {"MatMulIntegerToFloat": 6}),
    "bert-w3-groups": ("bert", {"bits": 3, "mode": "weight_only", "granularity": "per_group", "group_size": 8}, {}),
}


@pytest.mark.parametrize("case", FILES)
def test_the_file_is_the_model_in_memory_and_runs_on_integers(tmp_path, case):
    topology, arguments, kernels = FILES[case]
    x = inputs(topology, 64)
    run = run_of(tmp_path, small(topology), x)
    with torch.no_grad():
        before = run.model(x)
    part = Quantization(calibration="minmax", **arguments)
    part.prepare(run, NO_FIT)
    part.finish(run, NO_FIT)
    path, logits, kinds = exported(run.model, x, tmp_path)
    with torch.no_grad():
        expected = run.model(x)
    assert agreement(logits, expected) >= 0.995
    assert (expected - before).norm() < 0.5 * before.norm()
    assert {kind: kinds[kind] for kind in kernels} == kernels
    if "ConvInteger" not in kernels and kernels:
        assert not kinds["Conv"] + kinds["FusedConv"] + kinds["Gemm"] + kinds["MatMulInteger"]
    counts = count_onnx(path, None)
    stored = {2: 2, 3: 4, 4: 4}.get(part.width, 8)
    integer = [layer for layer in counts.layers if layer.weight_bits < 32]
    assert stored in {layer.weight_bits for layer in integer} <= {stored, 8}  # a few bytes are not worth packing
    assert part.bits()[0] == part.width


class Wide(nn.Module):
    def __init__(self):
        super().__init__()
        self.words = nn.Embedding(300, 64)
        self.first, self.last = nn.Linear(64, 512), nn.Linear(512, 3)

    def forward(self, x):
        return self.last(torch.relu(self.first(self.words(x).mean(1))))


def test_bits_on_disk_are_bits(tmp_path):
    torch.manual_seed(0)
    net, sizes = Wide(), {}
    weights = 300 * 64 + 64 * 512 + 512 * 3
    rest = 4 * (512 + 3) + (4 + 1) * (300 + 512 + 3)  # biases; a step and a zero point for each row
    x = torch.randint(0, 300, (64, 8))
    for bits in (4, 8):
        run = run_of(tmp_path, Network(net), x)
        Quantization(bits=bits, mode="weight_only").finish(run, NO_FIT)
        path = export_onnx(run.model, x[:3], tmp_path / f"{bits}.onnx")
        sizes[bits] = path.stat().st_size
        assert sizes[bits] <= 1.1 * (weights * bits / 8 + rest) + 1000, "names, shapes and operators take under 1 KB"
        with torch.no_grad():
            assert (Session(path).run(x) - run.model(x)).abs().max() < 1e-5
        counts = count(run.model, x[:1])
        assert counts.parameters == weights + 512 + 3
        assert counts.weight_bits == pytest.approx((bits * weights + 32 * (512 + 3)) / counts.parameters)
    assert sizes[4] < 0.6 * sizes[8]
    rows = run.report.tables["quantization"]
    assert [row["layer"] for row in rows] == ["net.words", "net.first", "net.last"]
    assert all(row["entropy_bytes"] <= row["bytes"] + 1 for row in rows)
