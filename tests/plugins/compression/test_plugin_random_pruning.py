"""Random pruning: zeroed equals removed, for units and whole modules, on every topology."""

from dataclasses import replace

import pytest
import torch
from shaken import shake_norms
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
from bigopt.vocabulary.settings import Optimizer, Recover, Schedule, StepOptions
from bigopt_plugins.compression.random_pruning._leaving import joins
from bigopt_plugins.compression.random_pruning._units import choose
from bigopt_plugins.compression.random_pruning.plugin import RandomPruning
from bigopt_plugins.models.inception import Inception
from bigopt_plugins.models.mobilenet import MobileNet
from bigopt_plugins.models.resnet import ResNet


class Plain(nn.Sequential):
    """A layer before a sigmoid: a zeroed unit still speaks unless what it goes into is zero as well."""

    def __init__(self) -> None:
        super().__init__(
            nn.Conv2d(1, 6, 3, padding=1), nn.BatchNorm2d(6), nn.Sigmoid(), nn.Flatten(), nn.Linear(216, 12),
            nn.Sigmoid(), nn.Linear(12, 3),
        )  # fmt: skip


def vit() -> nn.Module:
    transformers = pytest.importorskip("transformers")
    config = transformers.ViTConfig(
        image_size=6, patch_size=3, num_channels=1, hidden_size=16, num_hidden_layers=3, num_attention_heads=4,
        intermediate_size=24, num_labels=3,
    )  # fmt: skip
    return transformers.ViTForImageClassification(config)


NETS = {
    "plain": Plain,
    "resnet": lambda: ResNet(in_channels=1, num_classes=3, depth=(2, 2), width=8),
    "inception": lambda: Inception(in_channels=1, image_size=6, num_classes=3, modules=2, width=16),
    "mobilenet": lambda: MobileNet(in_channels=1, num_classes=3, width=0.25, expand=2),
    "vit": vit,
}


def network(name: str, seed: int = 0) -> Network:
    torch.manual_seed(seed)
    net = NETS[name]()
    shake_norms(net)
    return Network(net).eval()


def outputs(run) -> torch.Tensor:
    with torch.no_grad():
        return run.model.eval()(run.data.val.x)


CASES = [
    *((name, "units", "local") for name in NETS),
    ("plain", "neurons", "local"),
    ("mobilenet", "channels", "global"),
    ("vit", "heads", "global"),
    ("resnet", "modules", "local"),
    ("mobilenet", "modules", "global"),
    ("inception", "modules", "global"),
    ("vit", "modules", "local"),
]


@pytest.mark.parametrize(("name", "target", "ranking"), CASES)
def test_zeroed_equals_removed(tmp_path, name, target, ranking):
    runs = {}
    for mode in ("zero", "remove"):
        run = runs[mode] = make_run(tmp_path, network(name), data(image=True))
        dense = outputs(run)
        part = RandomPruning(0.5, target, ranking, mode)
        part.apply(run, 0.3)
        part.apply(run, 0.4)
    torch.testing.assert_close(outputs(runs["zero"]), outputs(runs["remove"]), atol=1e-5, rtol=0)
    assert (outputs(runs["remove"]) - dense).abs().max() > 1e-3
    counts = {mode: count(run.model, run.data.val.x[:1]) for mode, run in runs.items()}
    whole = count(network(name), run.data.val.x[:1])
    assert counts["remove"].macs < counts["zero"].macs == whole.macs
    assert counts["remove"].parameters < counts["zero"].parameters == whole.parameters
    assert counts["zero"].nonzero < whole.nonzero


def test_what_can_be_left_out(tmp_path):
    expected = {
        "resnet": ["stages.0.0", "stages.0.1", "stages.1.0.body", "stages.1.1"],
        "inception": [f"blocks.{b}.branch{n}" for b in (0, 1) for n in ("1", "3", "5", "_pool")],
        "mobilenet": ["blocks.0", "blocks.2", "blocks.4", "blocks.6"],
        "vit": ["vit.layers.0", "vit.layers.1", "vit.layers.2"],
        "plain": [],
    }
    part = RandomPruning(target="modules")
    for name, names in expected.items():
        run = make_run(tmp_path, network(name), data(image=True))
        assert part.layers(run) == [f"net.{each}" for each in names], name
    run = make_run(tmp_path, network("resnet"), data(image=True))
    run.options = StepOptions(ignore=("net.*.0", "*.body"))
    assert part.layers(run) == ["net.stages.0.1", "net.stages.1.1"]


@pytest.mark.parametrize("name", ["resnet", "inception", "vit"])
def test_what_is_left_is_rebuilt_and_pruned_again(tmp_path, name):
    run = make_run(tmp_path, network(name), data(image=True))
    RandomPruning(target="modules").apply(run, 0.5)
    RandomPruning(target="units").apply(run, 0.3)
    RandomPruning(target="modules").apply(run, 0.4)
    assert {entry["op"] for entry in run.model.changes} == {"leave_out", "prune"}
    save_structure(run.model, {"name": "fake"}, run.model.changes, tmp_path)
    again = load_structure(tmp_path, lambda spec: network(name, 1), {"leave_out": RandomPruning.replay}).eval()
    expected = outputs(run)
    with torch.no_grad():
        assert torch.equal(again(run.data.val.x), expected)


def test_the_file_answers_as_the_model(tmp_path):
    run = make_run(tmp_path, network("inception"), data(image=True))
    RandomPruning(target="modules").apply(run, 0.5)
    RandomPruning(target="units").apply(run, 0.3)
    file = export_onnx(run.model, run.data.val.x, tmp_path / "model.onnx")
    assert (Session(file).run(run.data.val.x) - outputs(run)).abs().max() < 1e-4


def test_removed_branches_cost_nothing_and_a_concatenation_keeps_one(tmp_path):
    run = make_run(tmp_path, network("inception"), data(image=True))
    RandomPruning(0.95, "modules", "global").apply(run, 0.95)
    for block in run.model.net.blocks:
        assert len(list(block.children())) == 1
    left = next(run.model.net.blocks[0].children())
    channels = [m.out_channels for m in left.modules() if isinstance(m, nn.Conv2d)][-1]
    readers = [m for m in run.model.net.blocks[1].modules() if isinstance(m, nn.Conv2d)]
    assert readers[0].in_channels == channels


def test_a_whole_inception_module_is_passed_by_on_request_only(tmp_path):
    run = make_run(tmp_path, network("inception"), data(image=True))
    dense = count(run.model, run.data.val.x[:1]).macs
    one = count(run.model.net.blocks[1], torch.zeros(1, 16, 1, 1)).macs
    part = RandomPruning(0.5, "modules", candidates=("net.blocks.?",))
    assert part.layers(run) == ["net.blocks.0", "net.blocks.1"]
    part.apply(run, 0.5, only="net.blocks.1")
    assert isinstance(run.model.net.blocks[1], nn.Identity)
    assert dense - count(run.model, run.data.val.x[:1]).macs == one
    run.report = report = Collected()
    before = outputs(run)
    RandomPruning(0.5, "modules", mode="zero", candidates=("net.blocks.0",)).apply(run, 0.5)
    assert torch.equal(outputs(run), before)
    assert any("net.blocks.0 was left as it was: with zero weights it cuts" in note for note in report.notes)


@pytest.mark.parametrize(("name", "target"), [("plain", "units"), ("inception", "modules")])
def test_zeroed_units_stay_so_in_recovery_and_in_later_steps(tmp_path, name, target):
    run = make_run(tmp_path, network(name), data(image=True), optimizer=Optimizer(lr=0.05))
    part, fit, names = RandomPruning(0.4, target, mode="zero"), Fitter(tmp_path), list(run.model.state_dict())
    probe = run.fork()
    part.apply(probe, 0.4)
    dense = dict(run.model.named_parameters())
    zeros = {n: (p == 0) & (dense[n] != 0) for n, p in probe.model.named_parameters()}
    before = run.model.net.state_dict()
    compress(run, "random_pruning", part, StepOptions(recover=Recover(epochs=1)), fit)
    fit(run, 1, name="a later step")
    after = dict(run.model.named_parameters())
    assert all(bool((after[n][z] == 0).all()) for n, z in zeros.items())
    assert list(run.model.state_dict()) == names
    moved = [n for n, z in zeros.items() if not torch.equal(after[n][~z], before[n.removeprefix("net.")][~z])]
    assert len(moved) > len(zeros) / 2
    removed = run.fork()
    groups = Groups(removed.model, run.data.val.x[:2])
    if target == "units":  # what the trained zeros stand for can be taken out
        for group in groups:
            rows = removed.model.get_submodule(group.name).weight.detach().flatten(1).any(1)
            groups.remove(group, (~rows).nonzero().flatten().tolist())
        torch.testing.assert_close(outputs(removed), outputs(run), atol=1e-5, rtol=0)


def test_the_draw():
    pools = {"a": list(range(10)), "b": [3, 5, 8, 9], "c": [7]}
    least = dict.fromkeys(pools, 1)

    def drawn(strength, ranking, seed=0):
        return choose(nn.Module(), pools, strength, ranking, least, seed)

    local = drawn(0.5, "local")
    assert {name: len(taken) for name, taken in local.items()} == {"a": 5, "b": 2}
    assert set(local["b"]) <= {3, 5, 8, 9} and local == drawn(0.5, "local")
    assert len({len(drawn(0.6, "global", seed)["a"]) for seed in range(20)}) > 1
    for seed in range(20):
        taken = drawn(0.6, "global", seed)
        assert sum(map(len, taken.values())) == 9 and len(taken.get("b", [])) <= 3 and "c" not in taken
    shares = torch.zeros(10)
    for seed in range(400):
        shares[drawn(0.5, "local", seed)["a"]] += 1 / 400
    assert (shares - 0.5).abs().max() < 0.1


@pytest.mark.parametrize(("name", "target"), [("resnet", "modules"), ("plain", "units")])
@pytest.mark.parametrize("schedule", ["iterative", "gradual"])
def test_rounds_take_as_many_as_one_shot(tmp_path, name, target, schedule):
    counts = []
    for options in (StepOptions(), StepOptions(schedule=Schedule(schedule, 5))):
        run = make_run(tmp_path, network(name), data(image=True))
        run.report = report = Collected()
        options = replace(options, recover=Recover(epochs=0))
        compress(run, "random_pruning", RandomPruning(0.5, target), options, Fitter(tmp_path))
        counts.append(
            (report.values["taken"], sum(p.numel() for p in run.model.parameters()) if target == "units" else 0)
        )
        assert not [key for key in vars(run.model) if "progress" in key]
    assert counts[0] == counts[1] and counts[0][0] > 0


def test_same_seed_same_units_another_seed_others(tmp_path):
    changes = []
    for seed in (0, 0, 1):
        run = make_run(tmp_path, network("resnet"), data(image=True), seed=seed)
        RandomPruning().apply(run, 0.3)
        changes.append(run.model.changes)
    assert changes[0] == changes[1] != changes[2]


def test_another_draw_takes_other_units_of_the_same_model(tmp_path):
    changes = []
    for draw in (0, 1, 2):
        run = make_run(tmp_path, network("resnet"), data(image=True))
        RandomPruning(draw=draw).apply(run, 0.3)
        changes.append(str(run.model.changes))
    assert len(set(changes)) == 3


def test_units_under_a_norm_over_channels_are_named_and_left(tmp_path):
    class Normed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner, self.norm, self.head = nn.Linear(36, 8), nn.LayerNorm(8), nn.Linear(8, 3)

        def forward(self, x):
            return self.head(self.norm(self.inner(x.flatten(1))))

    run = make_run(tmp_path, Network(Normed()), data(image=True))
    run.report = report = Collected()
    assert RandomPruning().layers(run) == []
    RandomPruning().apply(run, 0.5)
    assert run.model.changes == []
    assert any("net.inner was left as it was: net.norm takes its mean" in note for note in report.notes)
    run.options = StepOptions(strict=True)
    with pytest.raises(RequestError, match="net.inner"):
        RandomPruning().apply(run, 0.5)


def test_a_forward_pass_that_differs_in_training_is_not_rewritten():
    class Moody(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, x):
            return self.a(x) + self.b(x) if self.training else self.a(x) + x

    class Optional(Moody):
        def forward(self, x, mask=None):
            return self.a(x) + x if mask is None else self.b(x)

    assert joins(Moody()) == {} and joins(Optional()) == {}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"ratio": 1.0}, "ratio"),
        ({"target": "weights"}, "target"),
        ({"mode": "hide"}, "mode"),
        ({"ranking": "x"}, "ranking"),
        ({"min_units": 0}, "min_units"),
        ({"candidates": ("a",)}, "candidates: got \\['a'\\], but target is units"),
    ],
)
def test_arguments_out_of_range(arguments, message):
    with pytest.raises(RequestError, match=message):
        RandomPruning(**arguments)


@pytest.mark.parametrize("entry", [{"how": "magic"}, {"how": "cat", "module": "net.0", "owner": "net"}, {}])
def test_an_entry_of_another_model_is_refused(entry):
    with pytest.raises(RequestError, match="does not fit"):
        RandomPruning.replay(network("plain"), {"op": "leave_out", **entry})
