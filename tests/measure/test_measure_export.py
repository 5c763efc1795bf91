from __future__ import annotations

import logging
import subprocess
import sys
from collections import Counter
from pathlib import Path

import onnx
import pytest
import torch
from measure_nets import IMAGE, Residual
from torch import Tensor, nn

from bigopt.measure import Session, export_onnx, export_pt2
from bigopt.measure._inference import inference
from bigopt.measure.export import trace
from bigopt.vocabulary.errors import RunFailed

TRACES = (b"site-packages", b"torch", b".py", b"namespace", b"pkg.", b"stack", b"first.weight", b"tests")


def differs(file: Path, model: nn.Module, rows: int) -> float:
    x = torch.rand(rows, 1, 8, 8)
    with torch.no_grad():
        return (Session(file).run(x) - model(x)).abs().max().item()


@pytest.mark.parametrize("rows", [1, 2, 3, 7])
def test_a_file_takes_any_batch_and_answers_as_the_model(residual: nn.Module, residual_file: Path, rows: int) -> None:
    assert differs(residual_file, residual, rows) < 1e-5


@pytest.mark.parametrize("rows", [1, 2, 5])
def test_a_quantized_file_answers_as_its_graph(quantized: nn.Module, quantized_file: Path, rows: int) -> None:
    assert differs(quantized_file, quantized, rows) < 2e-2  # one step of an 8-bit activation


def test_names_and_the_open_dimension(residual_file: Path) -> None:
    graph = onnx.load(residual_file).graph
    (given,), (answer,) = graph.input, graph.output
    shape = given.type.tensor_type.shape.dim
    assert (given.name, answer.name) == ("input", "logits")
    assert shape[0].dim_param and [size.dim_value for size in shape[1:]] == [1, 8, 8]
    assert answer.type.tensor_type.shape.dim[0].dim_param == shape[0].dim_param


@pytest.mark.parametrize("fixture", ["residual_file", "quantized_file"])
def test_the_exporters_traces_are_gone(fixture: str, request: pytest.FixtureRequest) -> None:
    file: Path = request.getfixturevalue(fixture)
    content = file.read_bytes()
    assert [trace for trace in TRACES if trace in content] == []
    model = onnx.load(file)
    assert not model.metadata_props and not model.doc_string and not model.functions
    assert not model.graph.value_info and not any(node.name or node.metadata_props for node in model.graph.node)
    read = {name for node in model.graph.node for name in node.input}
    assert all(tensor.name in read for tensor in model.graph.initializer)


def test_the_file_is_hardly_more_than_its_weights(residual_file: Path) -> None:
    weights = 4 * sum(parameter.numel() for parameter in Residual().parameters())
    assert weights * 0.9 < residual_file.stat().st_size < weights + 1500


def test_the_file_is_the_only_one(residual_file: Path) -> None:
    assert [path.name for path in residual_file.parent.iterdir()] == ["residual.onnx"]


def test_equal_models_give_equal_bytes_silently_and_modes_stay(
    residual: nn.Module, residual_file: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    twin = Residual()
    twin.load_state_dict(residual.state_dict())
    twin.train()
    twin.norm.eval()
    level = logging.getLogger("torch.onnx").level
    again = export_onnx(twin, torch.rand(5, 1, 8, 8), tmp_path / "again.onnx")
    assert again.read_bytes() == residual_file.read_bytes()
    assert (twin.training, twin.norm.training, twin.dropout.training) == (True, False, True)
    assert capfd.readouterr() == ("", "")
    assert logging.getLogger("torch.onnx").level == level


def test_integers_reach_integer_kernels(quantized_file: Path, tmp_path: Path) -> None:
    import onnxruntime

    model = onnx.load(quantized_file)
    int8 = [tensor for tensor in model.graph.initializer if tensor.data_type == onnx.TensorProto.INT8]
    assert sorted(tuple(tensor.dims) for tensor in int8 if len(tensor.dims) > 1) == [
        (3, 128), (8, 1, 3, 3), (8, 8, 3, 3)
    ]  # fmt: skip
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    options.log_severity_level = 3
    onnxruntime.InferenceSession(str(quantized_file), options, providers=["CPUExecutionProvider"])
    kinds = Counter(node.op_type for node in onnx.load(tmp_path / "optimized.onnx").graph.node)
    assert kinds["QLinearConv"] == 2 and kinds["Conv"] == 0


FRESH = """
import sys, torch
for name in ("residual", "quantized"):
    program = torch.export.load(f"{name}.pt2").module()
    given, expected = torch.load(f"{name}.pt", weights_only=True)
    for rows in (1, 2, 5):
        difference = (program(given[:rows]) - expected[:rows]).abs().max().item()
        assert difference < 1e-6, (name, rows, difference)
foreign = [name for name in sys.modules if name.split(".")[0] in ("torchao", "bigopt", "bigopt_plugins", "onnx")]
assert not foreign, foreign
print("loaded")
"""


def test_pt2_loads_with_torch_alone(residual: nn.Module, quantized: nn.Module, tmp_path: Path) -> None:
    given = torch.rand(5, 1, 8, 8)
    for name, model in (("residual", residual), ("quantized", quantized)):
        with torch.no_grad():
            torch.save((given, model(given)), tmp_path / f"{name}.pt")
        content = export_pt2(model, given, tmp_path / f"{name}.pt2").read_bytes()
        assert b"site-packages" not in content and b"bigopt-tmp" not in content
    done = subprocess.run(
        [sys.executable, "-c", FRESH], capture_output=True, text=True, cwd=tmp_path, timeout=120, check=False
    )
    assert done.stdout.strip() == "loaded", done.stderr[-2000:]


def test_floats_behind_integers_are_not_shipped(quantized: nn.Module) -> None:
    kept = trace(quantized, IMAGE, "pt2").state_dict
    assert sum(tensor.numel() for tensor in kept.values() if tensor.is_floating_point() and tensor.ndim > 1) == 0
    assert sum(parameter.numel() for parameter in quantized.parameters() if parameter.ndim > 1) > 1000  # still theirs


class Branching(nn.Module):
    """Decides by the values that it sees, which no graph can."""

    def forward(self, x: Tensor) -> Tensor:
        return x if x.sum() > 0 else -x


@pytest.mark.parametrize("export", [export_onnx, export_pt2])
def test_a_layer_that_cannot_be_traced_is_named(export: object, tmp_path: Path) -> None:
    net = nn.Sequential(nn.Flatten(), nn.ModuleDict({"odd": Branching()})["odd"], nn.Linear(64, 2))
    with pytest.raises(RunFailed, match=r"export failed at layer 1 \(Branching\)") as caught:
        export(net, IMAGE, tmp_path / "file")  # type: ignore[operator]
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


class Unknown(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.linalg.eigvals(x[:, 0]).real


def test_an_operator_that_onnx_lacks_is_named(tmp_path: Path) -> None:
    old = tmp_path / "model.onnx"
    old.write_bytes(b"old")
    with pytest.raises(RunFailed, match="linalg_eigvals|linalg_eig"):
        export_onnx(nn.Sequential(Unknown(), nn.Linear(8, 2)), IMAGE, old)
    assert old.read_bytes() == b"old"


def test_a_model_for_one_batch_size_only_is_refused(tmp_path: Path) -> None:
    class Fixed(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.reshape(3, 64)

    with pytest.raises(RunFailed, match="pt2 export failed"):
        export_pt2(Fixed(), IMAGE, tmp_path / "model.pt2")


def test_a_graph_exported_for_training_is_switched_over() -> None:
    net = Residual().train()
    graph = torch.export.export(net, (torch.rand(3, 1, 8, 8),), strict=False).module()
    x = torch.rand(3, 1, 8, 8)
    mean = net.norm.running_mean.clone()
    with inference(graph) as ready:
        assert (ready(x) - net.eval()(x)).abs().max() < 1e-6
    assert torch.equal(net.norm.running_mean, mean)


def test_opset(tmp_path: Path) -> None:
    file = export_onnx(nn.Linear(4, 2), torch.zeros(1, 4), tmp_path / "model.onnx", opset=21)
    assert [entry.version for entry in onnx.load(file).opset_import if entry.domain == ""] == [21]


def test_the_table_of_translations_is_built_once_and_each_export_adds_to_its_own(monkeypatch):
    from torch.onnx._internal.exporter._registration import ONNXRegistry

    from bigopt.measure import _registry

    before, built = ONNXRegistry.__dict__["from_torchlib"], []

    class Table:
        def __init__(self):
            self.functions = {"aten::relu": ["known"]}

    monkeypatch.setattr(_registry, "_BUILT", {})
    monkeypatch.setattr(ONNXRegistry, "from_torchlib", staticmethod(lambda **named: built.append(named) or Table()))
    patched = ONNXRegistry.__dict__["from_torchlib"]
    for _ in range(2):
        with _registry.remembered_registry():
            one, other = (ONNXRegistry.from_torchlib(opset_version=18) for _ in range(2))
            one.functions["aten::relu"].insert(0, "own")
            one.functions["own::op"] = []
            assert other.functions == {"aten::relu": ["known"]}
    assert built == [{"opset_version": 18}]
    assert ONNXRegistry.__dict__["from_torchlib"] is patched
    monkeypatch.undo()
    assert ONNXRegistry.__dict__["from_torchlib"] is before
