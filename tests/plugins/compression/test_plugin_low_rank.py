"""Low rank: the best approximation, only where it saves, rebuilt from its record."""

import copy

import numpy as np
import pytest
import torch
from torch import nn
from train.train_fakes import data, make_run

from bigopt.measure import Session, count, export_onnx
from bigopt.pipeline.driver import compress
from bigopt.pipeline.notes import Collected
from bigopt.pipeline.structure import load_structure, save_structure
from bigopt.surgery import Groups
from bigopt.train import Fitter
from bigopt.vocabulary.errors import RequestError
from bigopt.vocabulary.network import Network
from bigopt.vocabulary.settings import Recover, Schedule, StepOptions
from bigopt_plugins.compression._factors import Pair
from bigopt_plugins.compression.low_rank import LowRank


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 12, 3, padding=1)
        self.norm = nn.BatchNorm2d(12)
        self.depthwise = nn.Conv2d(12, 12, 3, padding=1, groups=12)
        self.body = nn.Conv2d(12, 12, 3, padding=2, dilation=2, padding_mode="replicate", bias=False)
        self.wide = nn.Conv2d(12, 16, 3, stride=2, padding=1)
        self.fc = nn.Linear(16, 20)
        self.head = nn.Linear(20, 3)

    def forward(self, x):
        x = torch.relu(self.norm(self.stem(x)))
        x = torch.relu(x + self.body(self.depthwise(x)))
        return self.head(torch.relu(self.fc(torch.relu(self.wide(x)).mean((2, 3)))))


def net(seed: int = 0) -> Network:
    torch.manual_seed(seed)
    return Network(Residual()).eval()


@pytest.fixture
def run(tmp_path):
    return make_run(tmp_path, net(), data(image=True))


def exactly_of_rank(weight: torch.Tensor, rank: int) -> None:
    u, s, v = torch.linalg.svd(weight.detach().flatten(1), full_matrices=False)
    with torch.no_grad():
        weight.copy_((u[:, :rank] * s[:rank] @ v[:rank]).reshape(weight.shape))


def test_a_model_of_low_rank_answers_as_before_with_fewer_macs(run):
    for layer in (run.model.net.body, run.model.net.wide, run.model.net.fc):
        exactly_of_rank(layer.weight, 3)
    x = run.data.val.x
    dense = copy.deepcopy(run.model)
    LowRank(rank_by="energy", energy=0.999999).apply(run, 1e-6)
    assert {n: m.rank for n, m in run.model.named_modules() if isinstance(m, Pair)} == {
        "net.body": 3, "net.wide": 3, "net.fc": 3,
    }  # fmt: skip
    with torch.no_grad():
        torch.testing.assert_close(run.model(x), dense(x), atol=1e-5, rtol=0)
    before, after = count(dense, x[:1]), count(run.model, x[:1])
    assert before.macs - after.macs == (
        36 * (12 * 12 * 9 - 3 * (12 * 9 + 12)) + 9 * (16 * 12 * 9 - 3 * (12 * 9 + 16)) + (16 * 20 - 3 * 36)
    )
    wide = run.model.net.wide
    assert (wide[0].kernel_size, wide[0].stride, wide[1].kernel_size) == ((3, 3), (2, 2), (1, 1))
    assert wide[0].bias is None and torch.equal(wide[1].bias, dense.net.wide.bias)


def test_the_product_is_the_truncated_decomposition(run):
    weight = run.model.net.wide.weight.detach().reshape(16, 108).numpy().astype(np.float64)
    run.report = report = Collected()
    LowRank(ratio=0.5).apply(run, 0.5, only="net.wide")
    pair = run.model.net.wide
    assert pair.rank == round(0.5 * 16 * 108 / (108 + 16)) == 7
    u, s, v = np.linalg.svd(weight, full_matrices=False)
    expected = u[:, :7] * s[:7] @ v[:7]
    product = pair[1].weight.detach().flatten(1) @ pair[0].weight.detach().flatten(1)
    np.testing.assert_allclose(product.numpy(), expected, atol=1e-6)
    (row,) = report.tables["low_rank"]
    assert row["relative_error"] == pytest.approx(np.linalg.norm(weight - expected) / np.linalg.norm(weight), rel=1e-5)
    assert (row["weights_before"], row["weights"]) == (1728, 868)


def test_energy_keeps_the_fewest_values(run):
    with torch.no_grad():
        run.model.net.fc.weight.zero_()
        run.model.net.fc.weight[range(6), range(6)] = torch.tensor([4.0, 3, 2, 1, 1, 1])  # squares: 16 9 4 1 1 1 of 32
    for energy, rank in ((0.5, 1), (0.51, 2), (0.9, 3), (0.91, 4), (1 - 1e-6, 6)):
        trial = run.fork()
        LowRank(rank_by="energy", energy=energy).apply(trial, 1 - energy, only="net.fc")
        assert trial.model.net.fc.rank == rank, energy


def test_only_where_it_saves_and_the_rest_is_named(run):
    run.report = report = Collected()
    part = LowRank(rank_by="energy", energy=0.9999)
    assert part.strength() == pytest.approx(0.0001)
    part.apply(run, part.strength())
    assert not any(isinstance(m, Pair) for m in run.model.modules())
    part.finish(run, None)
    assert any("none would save" in note for note in report.notes)
    assert [n for n in report.notes if "depthwise" in n] == [
        "net.depthwise was left as it was: it is a grouped convolution with 12 groups"
    ]
    assert part.layers(run) == ["net.stem", "net.body", "net.wide", "net.fc"]
    run.options = StepOptions(strict=True)
    with pytest.raises(RequestError, match="net.depthwise"):
        part.apply(run, 0.5)
    run.options = StepOptions(strict=True, ignore=("*.depthwise",))
    LowRank().apply(run, 0.5)
    parameters = sum(p.numel() for p in run.model.parameters())
    assert parameters < sum(p.numel() for p in net().parameters())
    assert isinstance(run.model.net.head, nn.Linear)


def test_rounds_compose_and_recovery_trains_both_factors(run, tmp_path):
    options = StepOptions(recover=Recover(epochs=2), schedule=Schedule("iterative", 2))
    run.report = report = Collected()
    compress(run, "low_rank", LowRank(ratio=0.6), options, Fitter(tmp_path))
    one = run.fork(model=net())
    LowRank(ratio=0.6).apply(one, 0.6)
    for name in ("body", "wide", "fc"):
        assert abs(getattr(run.model.net, name).rank - getattr(one.model.net, name).rank) <= 1
    assert report.values["ranks"]["net.wide"] == run.model.net.wide.rank
    x, y = run.data.train.x, run.data.train.y
    run.task.loss(run.model(x), y).backward()
    for factor in (*run.model.net.wide, *run.model.net.fc, *run.model.net.body):
        assert factor.weight.grad.abs().sum() > 0


def test_the_structure_is_rebuilt_also_after_removing_channels(run, tmp_path):
    x = run.data.val.x
    LowRank().apply(run, 0.5)
    LowRank().apply(run, 0.2)
    groups = Groups(run.model, x[:2])
    for group in groups:
        groups.remove(group, [0])
    run.model.eval()
    save_structure(run.model, {"name": "fake"}, run.model.changes, tmp_path)
    again = load_structure(tmp_path, lambda spec: net(1), {"factorize": LowRank.replay}).eval()
    with torch.no_grad():
        assert torch.equal(again(x), run.model(x))
    assert again.net.wide[0].out_channels == run.model.net.wide.rank
    with pytest.raises(RequestError, match="does not fit"):
        LowRank.replay(net(), {"op": "factorize", "layer": "net.norm", "rank": 3})


def test_the_file_answers_as_the_model(run, tmp_path):
    LowRank().apply(run, 0.5)
    x = run.data.val.x
    file = export_onnx(run.model, x, tmp_path / "model.onnx")
    with torch.no_grad():
        assert (Session(file).run(x) - run.model(x)).abs().max() < 1e-4


def test_a_layer_whose_owner_reads_its_weight_is_put_back(tmp_path):
    class Reads(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner, self.head = nn.Linear(36, 20), nn.Linear(20, 3)

        def forward(self, x):
            return self.head(nn.functional.linear(x.flatten(1), self.inner.weight))

    run = make_run(tmp_path, Network(Reads()), data(image=True))
    run.report = report = Collected()
    LowRank().apply(run, 0.5)
    assert type(run.model.net.inner) is nn.Linear
    assert run.model.changes == []
    assert "net.inner was left as it was: the model does not run without it" in report.notes[0]


@pytest.mark.parametrize("kind", ["vit", "bert"])
def test_transformers(tmp_path, kind):
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    common = dict(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=24, num_labels=3)
    if kind == "vit":
        config = transformers.ViTConfig(image_size=6, patch_size=3, num_channels=1, **common)
        model, x = Network(transformers.ViTForImageClassification(config)).eval(), torch.rand(4, 1, 6, 6)
        dataset = data(image=True)
    else:
        config = transformers.BertConfig(vocab_size=20, max_position_embeddings=12, **common)
        model, x = Network(transformers.BertForSequenceClassification(config), pad_id=0).eval(), None
        x = torch.randint(1, 20, (4, 10))
        dataset = data()
        dataset.train.x = torch.randint(1, 20, (64, 10))
    run = make_run(tmp_path, model, dataset)
    LowRank().apply(run, 0.5)
    safe = [n for n, m in model.named_modules() if isinstance(m, Pair)]
    assert len(safe) >= 3
    removed = run.fork()
    for group in (groups := Groups(removed.model, x[:2])):
        if group.unit > 1:  # whole heads still go together
            groups.remove(group, [0])
    assert len([entry for entry in removed.model.changes if entry["op"] == "prune"]) == 1
    LowRank(attention=True).apply(run, 0.5)
    assert len([m for m in model.modules() if isinstance(m, Pair)]) == len(safe) + 3
    if kind == "bert":  # one export of a transformer is enough
        file = export_onnx(model, x, tmp_path / "model.onnx")
        with torch.no_grad():
            assert (Session(file).run(x) - model(x)).abs().max() < 1e-4


@pytest.mark.parametrize("arguments", [{"ratio": 1.0}, {"energy": 0.0}, {"rank_by": "luck"}])
def test_arguments_out_of_range(arguments):
    with pytest.raises(RequestError, match=next(iter(arguments))):
        LowRank(**arguments)
