"""Stacks of compression steps: the exported file answers as the model in memory does, and every step did its work."""

import copy
from dataclasses import dataclass
from pathlib import Path

import onnx
import pytest
import torch
from gated_nets import small
from torch import nn
from train.train_fakes import data, make_run

from bigopt.measure import count, export_onnx, predict_onnx
from bigopt.pipeline.driver import compress
from bigopt.train import Fitter
from bigopt.vocabulary.settings import Recover, StepOptions
from bigopt_plugins.compression.activation.plugin import Activation
from bigopt_plugins.compression.channel_pruning import ChannelPruning
from bigopt_plugins.compression.low_rank import LowRank
from bigopt_plugins.compression.magnitude_pruning import MagnitudePruning
from bigopt_plugins.compression.quantization.plugin import Quantization
from bigopt_plugins.compression.random_pruning.plugin import RandomPruning
from bigopt_plugins.compression.structured_sparsity._rules import Rule
from bigopt_plugins.compression.structured_sparsity.plugin import StructuredSparsity
from bigopt_plugins.compression.weight_sharing.plugin import WeightSharing

STACKS = {
    "channel_pruning,quantization": (
        "residual", lambda: [ChannelPruning(ratio=0.5), Quantization()],
    ),
    "low_rank,quantization": (
        "sequential", lambda: [LowRank(ratio=0.3), Quantization()],
    ),
    "magnitude_pruning,weight_sharing": (
        "depthwise", lambda: [MagnitudePruning(ratio=0.5), WeightSharing(bits=4)],
    ),
    "activation,channel_pruning": (
        "sequential", lambda: [Activation(form="staircase", levels=16), ChannelPruning(ratio=0.4)],
    ),
    "random_pruning,structured_sparsity,quantization": (
        "concatenating",
        lambda: [
            RandomPruning(ratio=0.25),
            StructuredSparsity(penalty=0.0, epochs=0, rules=(Rule("net.right.0", "remove", units=(0,)),)),
            Quantization(),
        ],
    ),
}  # fmt: skip
QUANTIZED = {name for name in STACKS if "quantization" in name or "activation" in name}
ROWS = 400


@dataclass
class Stacked:
    """A model before and after a stack of steps, its file, and the logits of both."""

    dense: nn.Module
    model: nn.Module
    file: Path
    memory: torch.Tensor
    answers: torch.Tensor


def trained(topology: str, dataset) -> nn.Module:
    """A net that tells the classes apart, so that its answers are not all the same."""
    model = small(topology)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    model.train()
    for step in range(30):
        rows = torch.arange(step * 32, step * 32 + 32) % len(dataset.train)
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(dataset.train.x[rows]), dataset.train.y[rows]).backward()
        optimizer.step()
    return model.eval()


@pytest.fixture(scope="module")
def stacked(tmp_path_factory):
    """By stack: the model before and after, its logits, and those of its ``model.onnx``."""
    root = tmp_path_factory.mktemp("stacks")
    dataset = data(train=256, val=ROWS, image=True)
    found = {}
    for number, (name, (topology, parts)) in enumerate(STACKS.items()):
        folder = root / f"{number}"
        folder.mkdir()
        run = make_run(folder, trained(topology, dataset), dataset)
        dense = copy.deepcopy(run.model)
        for step, part in zip(name.split(","), parts(), strict=True):
            compress(run, step, part, StepOptions(recover=Recover(epochs=0)), Fitter(folder))
        export_onnx(run.model, dataset.val.x[:2], folder / "model.onnx")
        with torch.no_grad():
            memory = run.model(dataset.val.x)
        file = predict_onnx(folder / "model.onnx", dataset.val, ROWS)
        found[name] = Stacked(dense, run.model, folder / "model.onnx", memory, file)
    return found


@pytest.mark.parametrize("stack", STACKS)
def test_the_file_answers_as_the_model_did(stacked, stack):
    memory, given = stacked[stack].memory, stacked[stack].answers
    assert given.shape == memory.shape == (ROWS, 3)
    assert len(memory.argmax(1).unique()) > 1  # otherwise agreeing is no feat
    if stack in QUANTIZED:
        assert (given.argmax(1) == memory.argmax(1)).float().mean() >= 0.995
    else:
        torch.testing.assert_close(given, memory, atol=1e-4, rtol=1e-4)


def test_every_step_did_its_work(stacked):
    def left(stack: str) -> float:
        before, after = (
            sum(p.numel() for p in model.parameters()) for model in (stacked[stack].dense, stacked[stack].model)
        )
        return after / before

    for name in QUANTIZED:
        assert {"QuantizeLinear", "DequantizeLinear"} <= {
            node.op_type for node in onnx.load(stacked[name].file).graph.node
        }
    model = stacked["magnitude_pruning,weight_sharing"].model
    for layer in (model.net.depth[0], model.net.point[0]):
        assert len(layer.weight.unique()) <= 16
    weights = torch.cat([p.detach().flatten() for p in model.parameters() if p.ndim > 1])
    assert (weights == 0).float().mean() >= 0.4
    assert left("activation,channel_pruning") < 0.7


def test_macs_of_a_model_without_its_channels(stacked):
    one = stacked["activation,channel_pruning"]
    x = torch.rand(1, 1, 6, 6)
    # 8-12-10 channels and neurons less 40% of each, rounded down, are 5-8-6.
    before, after = count(one.dense, x), count(one.model, x)
    assert before.macs == 36 * 9 * 8 + 36 * 9 * 8 * 12 + 108 * 10 + 10 * 3
    assert after.macs == 36 * 9 * 5 + 36 * 9 * 5 * 8 + 72 * 6 + 6 * 3
