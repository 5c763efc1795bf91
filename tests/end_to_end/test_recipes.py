"""The compression recipes, each on a few digits: they take away what their names say, and nothing else."""

import json

import onnx
import pytest

from bigopt.cli.main import main

SMALL = (
    "dataset=digits dataset.limit=150 trainer.max_epochs=1 trainer.compile=off tracking=none cache=off control=false "
    "measure=quick measure.latency=false hydra.run.dir=out"
).split()


def run(folder, recipe, step, *words):
    """The report of a recipe, and the files of its baseline and its result."""
    assert main([f"experiment={recipe}", *SMALL, f"compression.{step}.recover.epochs=1", *words]) == 0
    report = json.loads((folder / "out" / "report.json").read_text())
    files = [onnx.load(folder / "out" / "stages" / name / "model.onnx") for name in ("baseline", step)]
    return report, *files


def widths(model, operator):
    """Outputs of all convolutions (``Conv``) or linear layers (``Gemm``) of a file, in its order."""
    shapes = {one.name: list(one.dims) for one in model.graph.initializer}
    return [shapes[node.input[1]][0] for node in model.graph.node if node.op_type == operator]


def operators(model):
    """Kinds of operators in a file."""
    return {node.op_type for node in model.graph.node}


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_alexnets_back_end_loses_half_of_its_kernels_and_the_front_end_none(tmp_path):
    _, dense, pruned = run(tmp_path, "alexnet_prune_kernels", "channel_pruning")
    before, after = widths(dense, "Conv"), widths(pruned, "Conv")
    assert len(before) == 5
    assert after[:2] == before[:2]
    assert after[2:] == [count // 2 for count in before[2:]]
    assert widths(pruned, "Gemm") == widths(dense, "Gemm")
    assert len(widths(dense, "Gemm")) == 3


def test_inception_loses_modules(tmp_path):
    report, dense, pruned = run(tmp_path, "inception_prune_modules", "random_pruning", "model.width=16")
    assert len(widths(pruned, "Conv")) < len(widths(dense, "Conv"))
    assert report["stages"][-1]["macs"] < report["stages"][0]["macs"]
    assert report["stages"][-1]["values"]["taken"] >= 4


@pytest.mark.parametrize(("bits", "kind"), [(8, "INT8"), (4, "INT4")])
def test_alexnets_kernels_are_integers(tmp_path, bits, kind):
    report, _, rounded = run(tmp_path, f"alexnet_{bits}bit", "quantization")
    kinds = [one.data_type for one in rounded.graph.initializer if len(one.dims) == 4]
    assert len(kinds) == 5 and set(kinds) == {onnx.TensorProto.DataType.Value(kind)}
    assert report["stages"][-1]["bytes"] < report["stages"][0]["bytes"] * (bits + 2) / 32


@pytest.mark.parametrize("form", ["quadratic", "cubic", "staircase"])
def test_no_relu_is_left(tmp_path, form):
    report, dense, replaced = run(tmp_path, f"relu_to_{form}", "activation", "model.width=8")
    assert "Relu" in operators(dense)
    assert "Relu" not in operators(replaced)
    assert ("QuantizeLinear" in operators(replaced)) == (form == "staircase")
    assert report["stages"][-1]["name"] == "activation"
