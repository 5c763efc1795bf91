"""Static int8: what becomes integers, and that it stays close to the float model."""

import onnx
import pytest
import torch
from torch import nn
from train.train_fakes import data, make_run

from bigopt.vocabulary.errors import RequestError
from bigopt.vocabulary.network import Network
from bigopt.vocabulary.settings import StepOptions
from bigopt_plugins.compression.quantization.plugin import Quantization


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU())
        self.body = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8))
        self.act = nn.ReLU()
        self.head = nn.Linear(8, 3)

    def forward(self, x):
        x = self.stem(x)
        return self.head(self.act(x + self.body(x)).mean((2, 3)))


@pytest.fixture
def run(tmp_path):
    torch.manual_seed(0)
    model = Network(Residual())
    model.train()
    for _ in range(3):
        model(torch.rand(32, 1, 6, 6))
    return make_run(tmp_path, model.eval(), data(image=True))


def quantized(run, **arguments):
    Quantization(**arguments).finish(run, lambda *a, **k: None)
    return run.model


@pytest.mark.parametrize("calibration", ["mse", "min_max"])
def test_close_to_the_float_model(run, calibration):
    x = run.data.val.x
    with torch.no_grad():
        float_logits = run.model(x)
        logits = quantized(run, calibration=calibration, reduce_range=False)(x)
    assert (logits.argmax(1) == float_logits.argmax(1)).float().mean() >= 0.9
    assert (logits - float_logits).abs().max() < 0.05 * float_logits.abs().max() + 0.02


def test_calibration_reads_training_samples_only(run):
    class Forbidden:
        in_memory = True

        def __len__(self):
            return 32

        def take(self, index):
            raise AssertionError("validation was read")

    run.data.val = Forbidden()
    run.data.test = Forbidden()
    quantized(run)


@pytest.mark.parametrize(("reduce_range", "limit"), [(True, 63), (False, 127)])
def test_weights_are_integers_of_the_range(run, reduce_range, limit):
    model = quantized(run, reduce_range=reduce_range)
    integers = [b for b in model.buffers() if b.dtype is torch.int8] + [
        p for p in model.parameters() if p.dtype is torch.int8
    ]
    assert len(integers) == 3
    assert max(int(t.abs().max()) for t in integers) == limit


def test_residual_convolutions_and_additions_run_on_integer_kernels(run, tmp_path):
    import onnxruntime as ort

    model = quantized(run)
    path = tmp_path / "model.onnx"
    torch.onnx.export(
        model, (run.data.val.x[:2],), path, dynamo=True, external_data=False, verbose=False,
        dynamic_shapes=({0: torch.export.Dim("batch", min=1)},),
    )  # fmt: skip
    options = ort.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    kinds = [node.op_type for node in onnx.load(tmp_path / "optimized.onnx").graph.node]
    assert kinds.count("QLinearConv") == 2
    assert kinds.count("QLinearAdd") == 1
    assert "Conv" not in kinds and "Add" not in kinds
    x = run.data.val.x
    with torch.no_grad():
        expected = model(x)
    got = torch.from_numpy(session.run(None, {session.get_inputs()[0].name: x.numpy()})[0])
    assert (got.argmax(1) == expected.argmax(1)).float().mean() >= 0.995


def test_ignored_layers_stay_in_float(run):
    run.options = StepOptions(ignore=("net.head",))
    values = {}
    run.report.value = values.__setitem__
    notes = []
    run.report.note = notes.append
    quantized(run)
    assert values["quantized_layers"] == ["net.stem.0", "net.body.0"]
    assert any("net.head" in note for note in notes)


@pytest.mark.parametrize("arguments", [{"bits": 4}, {"bits": 9}, {"calibration": "magic"}, {"samples": 0}])
def test_arguments_out_of_range(arguments):
    with pytest.raises(RequestError, match=next(iter(arguments))):
        Quantization(**arguments)
