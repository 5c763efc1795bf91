"""Schedules, penalties and adapters of fine-tuning do what their papers say."""

import copy

import onnx
import pytest
import torch
from onnxruntime import InferenceSession
from torch import nn
from train.train_fakes import data, make_run
from transfer_nets import changed, net, state

from bigopt import registry
from bigopt.measure.export import export_onnx
from bigopt.pipeline.notes import Collected
from bigopt.train import Fitter
from bigopt.vocabulary.batch import Batch, Output
from bigopt.vocabulary.data import Data, Schema, TensorSplit
from bigopt.vocabulary.errors import RequestError
from bigopt.vocabulary.network import Network
from bigopt.vocabulary.objective import Monitor
from bigopt.vocabulary.settings import Optimizer
from bigopt_plugins.transfer import _adapters
from bigopt_plugins.transfer._layers import blocks
from bigopt_plugins.transfer._unfreezing import GradualUnfreezing, rates, unfrozen
from bigopt_plugins.transfer.fine_tuning import FineTuning

BLOCKS = ["net.0.0.0", "net.0.0.1", "net.0.1.0", "net.0.1.1", "net.1"]


@pytest.fixture
def run(tmp_path):
    run = make_run(tmp_path, net(), data(image=True), max_epochs=2)
    run.report = Collected()
    return run


def batch(run, rows=8):
    return Batch(run.data.train.x[:rows], run.data.train.y[:rows], torch.arange(rows))


def test_one_more_block_trains_every_so_many_epochs():
    names = ["a", "b", "c"]
    assert [unfrozen(names, epoch, 2) for epoch in range(7)] == [
        ["c"],
        ["c"],
        ["b", "c"],
        ["b", "c"],
        ["a", "b", "c"],
        ["a", "b", "c"],
        ["a", "b", "c"],
    ]


def test_gradual_unfreezing_trains_what_its_epoch_allows(run, tmp_path):
    seen = []

    class Watch(FineTuning):
        def loss(self, run, batch, output):
            seen.append([name for name in BLOCKS if run.model.get_submodule(name).weight.requires_grad])
            return {}

    part = Watch(unfreeze_every=1)
    run.parts, run.monitor = [part], Monitor("train/loss", "min")
    part.prepare(run, None)
    before = state(run.model)
    Fitter(tmp_path)(run, 2)
    per_epoch = len(seen) // 2
    assert seen[0] == ["net.1"]
    assert seen[per_epoch] == ["net.0.1.1", "net.1"]
    moved = changed(before, state(run.model))
    assert not any(name.startswith(("net.0.0.", "net.0.1.0.")) for name in moved)
    assert {"net.0.1.1.weight", "net.1.weight"} <= moved
    assert all(p.requires_grad for p in run.model.parameters())


def test_a_recovering_model_is_not_unfrozen_step_by_step(run):
    part = FineTuning(unfreeze_every=1)
    assert [type(c) for c in part.callbacks(run)] == [GradualUnfreezing]
    run.baseline = run.model
    assert part.callbacks(run) == []


def test_discriminative_rates_fall_block_by_block(run):
    assert rates(["a", "b", "c"], 0.5, 0.1) == pytest.approx({"a": 0.025, "b": 0.05, "c": 1.0})
    groups = FineTuning(lr_decay=0.5).param_groups(run, [{"params": list(run.model.parameters()), "lr": 0.8}])
    found = {id(p): group["lr"] for group in groups for p in group["params"]}
    assert [found[id(run.model.get_submodule(name).weight)] for name in BLOCKS] == [0.05, 0.1, 0.2, 0.4, 0.8]
    assert len(found) == len(list(run.model.parameters()))


def test_lp_ft_trains_the_head_alone_and_then_everything(run, tmp_path):
    part = FineTuning(probe_epochs=2)
    run.parts = [part]
    fit = Fitter(tmp_path)
    start = state(run.model)
    part.prepare(run, fit)
    probed = state(run.model)
    assert changed(start, probed) == {"net.1.weight", "net.1.bias"}
    fit(run, 1, name="baseline")
    weights = {name for name, _ in run.model.named_parameters() if name.endswith("weight")}
    assert weights <= changed(probed, state(run.model))
    assert [path.name for path in sorted((tmp_path / "fits").iterdir())] == ["000-probe", "001-baseline"]


def test_l2_sp_pulls_with_alpha_times_the_distance(run):
    part = FineTuning(l2_sp=0.3, l2_sp_head=0.2)
    part.prepare(run, None)
    start = {name: p.detach().clone() for name, p in run.model.named_parameters()}
    with torch.no_grad():
        for p in run.model.parameters():
            p.add_(torch.randn_like(p))
    part.loss(run, batch(run), Output(torch.zeros(8, 3)))["l2_sp"].backward()
    for name, p in run.model.named_parameters():
        expected = 0.2 * p if name.startswith("net.1.") else 0.3 * (p - start[name])
        assert torch.allclose(p.grad, expected, atol=1e-6), name


def test_l2_sp_takes_the_place_of_decay_below_the_head(run):
    part = FineTuning(l2_sp=0.3)
    groups = part.param_groups(run, [{"params": list(run.model.parameters()), "lr": 1.0, "weight_decay": 0.1}])
    decay = {id(p): group["weight_decay"] for group in groups for p in group["params"]}
    assert decay[id(run.model.net[1].weight)] == 0.1
    assert decay[id(run.model.net[0][0][0].weight)] == 0.0


def test_a_strong_l2_sp_holds_the_weights(run, tmp_path):
    run.settings = copy.copy(run.settings)
    moved = {}
    for alpha in (0.0, 100.0):
        run.model = net()
        part = FineTuning(l2_sp=alpha)
        run.parts = [part]
        part.prepare(run, None)
        before = state(run.model)
        object.__setattr__(run.settings, "optimizer", Optimizer(name="sgd", lr=0.005, momentum=0.0, weight_decay=0.0))
        Fitter(tmp_path / str(alpha))(run, 2)
        after = state(run.model)
        moved[alpha] = (after["net.0.1.0.weight"] - before["net.0.1.0.weight"]).norm().item()
    assert moved[100.0] < 0.7 * moved[0.0]


def test_statistics_can_stay_while_their_blocks_train(run, tmp_path):
    part = FineTuning(frozen_statistics=True)
    run.parts = [part]
    part.prepare(run, None)
    before = state(run.model)
    Fitter(tmp_path)(run, 1)
    moved = changed(before, state(run.model))
    assert "net.0.0.1.weight" in moved
    assert not any("running" in name or "num_batches" in name for name in moved)


def mlp():
    torch.manual_seed(0)
    return Network(nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 3)))


@pytest.mark.parametrize("kind", ["lora", "dora", "ia3"])
def test_merged_adapters_answer_as_unmerged_ones(tmp_path, kind):
    run = make_run(tmp_path, mlp(), data(), max_epochs=2, optimizer=Optimizer(lr=0.05))
    run.report = Collected()
    part = FineTuning(adapter=kind, rank=2)
    run.parts = [part]
    before, plain = run.model(run.data.val.x), state(run.model)
    part.prepare(run, None)
    assert torch.allclose(run.model.eval()(run.data.val.x), before, atol=1e-6)
    trained = {name for name, p in run.model.named_parameters() if p.requires_grad}
    assert {"net.4.weight", "net.4.bias"} < trained
    assert not any("base_layer" in name for name in trained)
    Fitter(tmp_path)(run, 2)
    unmerged = run.model.eval()(run.data.val.x)
    assert not torch.allclose(unmerged, before, atol=1e-2)
    part.finish(run, None)
    assert torch.allclose(run.model(run.data.val.x), unmerged, atol=1e-5)
    assert state(run.model).keys() == plain.keys()
    assert all(p.requires_grad for p in run.model.parameters())
    assert "net.0.weight" in changed(plain, state(run.model))


def test_transformers_get_adapters_where_the_papers_put_them():
    tiny = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    bert = registry.build("models", "hf_text", {"vocab_size": 20, "num_classes": 3, "config": tiny})
    layer = "bert.encoder.layer.0."
    names, _ = _adapters.targets(bert, "lora", (), "classifier")
    assert names == [f"{layer}attention.self.query", f"{layer}attention.self.value"]
    names, inputs = _adapters.targets(bert, "ia3", (), "classifier")
    assert {f"{layer}attention.self.key", f"{layer}attention.self.value", f"{layer}output.dense"} <= set(names)
    assert f"{layer}output.dense" in inputs
    assert blocks(Network(bert))[-3:] == ["net.bert.encoder.layer.0", "net.bert.pooler", "net.classifier"]


def sentences(rows, seed):
    """Texts of 8 tokens of which some are padding (0); the class is whether token 1 occurs."""
    x = torch.randint(2, 20, (rows, 8), generator=torch.Generator().manual_seed(seed))
    y = torch.arange(rows) % 2
    x[y == 1, 0] = 1
    x[::3, 6:] = 0
    return TensorSplit(x, y)


def test_a_sentence_encoder_is_exported_with_its_adapters_merged(tmp_path):
    tiny = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    texts = Data(
        "texts", Schema("classification", "text", (8,), 2, vocab_size=20), sentences(48, 1), sentences(24, 2), None
    )
    bert = registry.build("models", "hf_text", {"vocab_size": 20, "num_classes": 2, "config": tiny, "pooling": "mean"})
    run = make_run(tmp_path, Network.for_data(bert, texts), texts, max_epochs=2, optimizer=Optimizer(lr=0.02))
    run.report = Collected()
    plain = state(run.model)
    run.parts = [part := FineTuning(adapter="lora", rank=2, probe_epochs=2)]
    fit = Fitter(tmp_path)
    part.prepare(run, fit)
    # query and value of both layers, each A (2, 16) and B (16, 2); the head
    assert sum(p.numel() for p in run.model.parameters() if p.requires_grad) == 2 * 2 * 2 * 2 * 16 + 2 * 16 + 2
    fit(run, 2)
    unmerged = run.model.eval()(texts.val.x).detach()
    part.finish(run, fit)
    heads = {"net.classifier.weight", "net.classifier.bias"}
    moved = changed(plain, state(run.model)) - heads
    assert moved == {
        f"net.bert.encoder.layer.{layer}.attention.self.{name}.weight"
        for layer in (0, 1)
        for name in ("query", "value")
    }
    file = export_onnx(run.model, texts.val.x[:3], tmp_path / "model.onnx")
    assert not [one.name for one in onnx.load(file).graph.initializer if "lora" in one.name]
    answers = InferenceSession(str(file), providers=["CPUExecutionProvider"]).run(None, {"input": texts.val.x.numpy()})
    torch.testing.assert_close(torch.from_numpy(answers[0]), unmerged, atol=1e-5, rtol=1e-4)


def test_patterns_choose_the_layers():
    net = mlp().net
    assert _adapters.targets(net, "lora", (), "4")[0] == ["0", "2"]
    assert _adapters.targets(net, "lora", ("2",), "4")[0] == ["2"]
    with pytest.raises(RequestError, match=r"transfer\.adapt"):
        _adapters.targets(net, "lora", ("query",), "4")


def test_a_missing_peft_is_one_clear_line(monkeypatch):
    monkeypatch.setattr(_adapters, "find_spec", lambda name: None)
    with pytest.raises(RequestError, match=r"peft, which is not installed: pip install 'bigopt\[peft\]'"):
        FineTuning(adapter="lora")


@pytest.mark.parametrize(
    "arguments",
    [
        {"lr_decay": 0.0},
        {"unfreeze_every": -1},
        {"probe_epochs": -1},
        {"l2_sp": -0.1},
        {"rank": 0},
        {"adapter_dropout": 1.0},
    ],
    ids=lambda arguments: next(iter(arguments)),
)
def test_arguments_of_fine_tuning_out_of_range(arguments):
    with pytest.raises(RequestError, match=next(iter(arguments))):
        FineTuning(**arguments)
