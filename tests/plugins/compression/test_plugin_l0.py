"""Hard-concrete gates and balls: the papers' numbers, gradients, and removal that changes nothing."""

import math

import numpy as np
import pytest
import torch
from gated_nets import CONVOLUTIONAL, TRANSFORMERS, inputs, small
from train.train_fakes import data, make_run

from bigopt.measure import export_onnx
from bigopt.measure.session import Session
from bigopt.pipeline.driver import compress
from bigopt.pipeline.notes import Collected
from bigopt.surgery import Groups
from bigopt.train import Fitter
from bigopt.vocabulary.batch import Batch, Output
from bigopt.vocabulary.data import Data, Schema, TensorSplit
from bigopt.vocabulary.errors import RequestError
from bigopt.vocabulary.network import Network
from bigopt.vocabulary.objective import Monitor
from bigopt.vocabulary.settings import Optimizer, Recover, StepOptions
from bigopt_plugins.compression._held import KeepZeros
from bigopt_plugins.compression.l0._balls import UnitBall, WeightBall, project_l0, project_l1
from bigopt_plugins.compression.l0._control import Control
from bigopt_plugins.compression.l0._hard_concrete import HardConcrete, probability, sample, settled
from bigopt_plugins.compression.l0._units import Counter, find_units
from bigopt_plugins.compression.l0.plugin import L0

TOPOLOGIES = [*CONVOLUTIONAL, *TRANSFORMERS]


def dataset(topology: str) -> Data:
    if topology != "bert":
        return data(image=True)
    x = inputs("bert", 32)
    split = TensorSplit(x, x[:, 0] % 3)
    return Data("text", Schema("classification", "text", (8,), 3, vocab_size=30), split, split, None, fingerprint="t")


def weight_count(model) -> int:
    return sum(m.weight.numel() for m in model.modules() if isinstance(m, torch.nn.Conv2d | torch.nn.Linear))


def prepared(tmp_path, topology="sequential", **arguments):
    run = make_run(tmp_path, small(topology), dataset(topology))
    run.report = Collected()
    part = L0(**arguments)
    part.prepare(run, None)
    return run, part


def control_of(run, part) -> Control:
    return part.modules(run)["l0"]


def test_probability_of_an_open_gate_is_the_papers():
    # sigmoid(log α − 2/3·log(0.1/1.1)): for log α = 0, 1/(1 + 11^(−2/3)) = 0.831825…
    assert probability(torch.tensor(0.0)).item() == pytest.approx(1 / (1 + 11 ** (-2 / 3)), abs=1e-6)
    log_alpha = torch.tensor([-3.0, -1.0, 0.5, 2.0])
    expected = [1 / (1 + math.exp(-(a - 2 / 3 * math.log(0.1 / 1.1)))) for a in log_alpha.tolist()]
    assert probability(log_alpha).tolist() == pytest.approx(expected, abs=1e-6)


def test_samples_are_open_as_often_as_the_formula_says():
    u = torch.linspace(1e-6, 1 - 1e-6, 100_001)
    for log_alpha in (-2.0, 0.0, 1.5):
        share = (sample(torch.tensor(log_alpha), u) > 0).float().mean().item()
        assert share == pytest.approx(probability(torch.tensor(log_alpha)).item(), abs=2e-4)


def test_settled_gates_are_the_papers():
    # sigmoid(0)·1.2 − 0.1 = 0.5; closed exactly where sigmoid(log α) ≤ 1/12; 1 where it is ≥ 11/12
    gates = settled(torch.tensor([0.0, math.log(1 / 11) - 1e-4, math.log(11) + 1e-4]))
    assert gates.tolist() == pytest.approx([0.5, 0.0, 1.0])


def test_gates_start_open_and_learn_from_the_loss_and_from_the_penalty():
    gate = HardConcrete((4, 3), torch.Generator().manual_seed(0))
    assert torch.equal(gate.eval()(), torch.ones(4, 3))
    with torch.no_grad():
        gate.log_alpha.zero_()
    gate.train()
    assert torch.allclose(gate(), torch.full((4, 3), 0.5))  # u = 1/2 is the median
    gate().sum().backward()
    assert (gate.log_alpha.grad > 0).all()
    gate.log_alpha.grad = None
    probability(gate.log_alpha).sum().backward()
    assert (gate.log_alpha.grad > 0).all()


@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_counter_counts_what_removal_leaves(topology):
    model = small(topology)
    x = inputs(topology)
    groups = Groups(model, x[:2])
    found, _ = find_units(model, groups)
    counter = Counter(model, found)
    masks = [torch.ones(units.count) for units in found]
    assert float(counter(torch.cat(masks))) == weight_count(model)
    for units, mask in zip(found, masks, strict=True):
        mask[: units.count // 2] = 0
        group = next(group for group in groups if group.name == units.name)
        groups.remove(group, range(units.count // 2))
    assert float(counter(torch.cat(masks))) == weight_count(model)


def flattening() -> torch.nn.Module:
    """Pixels into a linear layer (perceptron) or a flattened map (the sequential net)."""
    torch.manual_seed(2)
    return Network(torch.nn.Sequential(
        torch.nn.Flatten(), torch.nn.Linear(36, 7), torch.nn.ReLU(), torch.nn.Linear(7, 3),
    ))  # fmt: skip


@pytest.mark.parametrize("topology", ["sequential", "perceptron"])
def test_inputs_have_gates_of_their_own_and_are_counted_with_those_of_their_units(tmp_path, topology):
    model = flattening() if topology == "perceptron" else small(topology)
    x = torch.rand(16, 1, 6, 6)
    run = make_run(tmp_path, model, data(image=True))
    run.report = Collected()
    with torch.no_grad():
        dense = model.eval()(x)
    part = L0(inputs=True)
    part.prepare(run, None)
    control = control_of(run, part)
    features = {"sequential": ["net.net.8/inputs"], "perceptron": ["net.1/inputs"]}[topology]
    assert [name for name in control.names if name.endswith("/inputs")] == features
    assert control.total == weight_count(small(topology) if topology == "sequential" else flattening())
    with torch.no_grad():
        assert torch.allclose(run.model.eval()(x), dense, atol=1e-6)
    generator = torch.Generator().manual_seed(3)
    p = [torch.rand(gate.log_alpha.shape, generator=generator) for gate in control.gates]
    draws = [
        float(control.count([(torch.rand(q.shape, generator=generator) < q).float() for q in p])) for _ in range(4000)
    ]
    assert float(control.count(p)) == pytest.approx(np.mean(draws), abs=4 * np.std(draws) / 4000**0.5)
    with torch.no_grad():
        for gate in control.gates:
            gate.log_alpha.copy_(torch.randn(gate.log_alpha.shape, generator=generator) * 4)
        if topology == "sequential":  # a channel that is open, but of whose flattened map no position is
            control.gates[control.names.index("net.net.3")].log_alpha[0] = 9.0
            control.gates[-1].log_alpha[:9] = -9.0
        gated, left = run.model.eval()(x), control.left()
    part.finish(run, None)
    with torch.no_grad():
        assert (run.model.eval()(x) - gated).abs().max() < 1e-5
    layers = [m for m in run.model.modules() if isinstance(m, torch.nn.Conv2d | torch.nn.Linear)]
    nonzero = sum(int(layer.weight.count_nonzero()) for layer in layers)
    # What made the channel without positions is gone as well.
    assert nonzero == left if topology == "perceptron" else nonzero < left
    assert [type(p) for p in run.parts] == [KeepZeros]


def test_a_gate_on_an_input_learns_from_the_loss(tmp_path):
    run = make_run(tmp_path, flattening(), data(image=True))
    run.report = Collected()
    part = L0(inputs=True)
    part.prepare(run, None)
    control = control_of(run, part)
    with torch.no_grad():
        for gate in control.gates:
            gate.log_alpha.zero_()
    run.model.train()(torch.rand(16, 1, 6, 6)).square().sum().backward()
    assert (control.gates[-1].log_alpha.grad != 0).all()


@pytest.mark.parametrize(("gates", "price"), [("units", 3.0), ("weights", 30.0)])
def test_the_price_of_weights_is_above_that_of_units_unless_it_is_given(tmp_path, gates, price):
    for penalty, expected in ((None, price), (7.0, 7.0)):
        run, part = prepared(tmp_path, gates=gates, penalty=penalty)
        control = control_of(run, part)
        control.warm.fill_(1.0)
        share = float(control.expected().detach()) / control.total
        assert float(part.loss(run, None, None)["l0"].detach()) == pytest.approx(expected * share, rel=1e-6)


@pytest.mark.parametrize(
    "more",
    [{"gates": "weights"}, {"constraint": "l1_ball"}, {"constraint": "l0_ball", "method": "projection"}],
    ids=["weights", "l1", "projection"],
)
def test_inputs_need_gates_on_units(more):
    with pytest.raises(RequestError, match="inputs: got true, which needs gates on units"):
        L0(inputs=True, **more)


def test_expected_number_is_the_mean_over_independent_gates():
    model = small("residual")
    found, _ = find_units(model, Groups(model, inputs("residual")[:2]))
    counter = Counter(model, found)
    generator = torch.Generator().manual_seed(1)
    p = torch.rand(sum(units.count for units in found), generator=generator)
    draws = [float(counter((torch.rand(len(p), generator=generator) < p).float())) for _ in range(4000)]
    assert float(counter(p)) == pytest.approx(np.mean(draws), abs=4 * np.std(draws) / 4000**0.5)


@pytest.mark.parametrize("topology", TOPOLOGIES)
@pytest.mark.parametrize("gates", ["units", "weights"])
def test_gated_model_is_the_model_until_gates_close(tmp_path, topology, gates):
    x = inputs(topology)
    with torch.no_grad():
        before = small(topology)(x)
    run, part = prepared(tmp_path, topology, gates=gates)
    with torch.no_grad():
        assert torch.allclose(run.model.eval()(x), before, atol=1e-6)


@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_closed_units_are_removed_and_the_outputs_stay(tmp_path, topology):
    run, part = prepared(tmp_path, topology)
    x = inputs(topology)
    control = control_of(run, part)
    generator = torch.Generator().manual_seed(3)
    for gate in control.gates:
        with torch.no_grad():
            gate.log_alpha.copy_(torch.randn(gate.log_alpha.shape, generator=generator) * 4)
    before_parameters = sum(p.numel() for p in run.model.parameters())
    with torch.no_grad():
        gated = run.model.eval()(x)
    part.finish(run, None)
    with torch.no_grad():
        assert (run.model.eval()(x) - gated).abs().max() < 1e-5
    assert sum(p.numel() for p in run.model.parameters()) < before_parameters
    assert not any(type(m).__name__.startswith(("Gated", "HardConcrete")) for m in run.model.modules())
    assert {entry["op"] for entry in run.model.changes} == {"prune"}
    assert run.monitor == Monitor("val/accuracy", "max")
    if topology not in ("residual", "bert"):
        return  # exporting takes seconds
    path = export_onnx(run.model, x[:2], tmp_path / "model.onnx")
    assert (Session(path).run(x) - run.model(x).detach()).abs().max() < 1e-4


def test_groups_under_a_layer_norm_are_named_and_refused_when_strict(tmp_path):
    run, part = prepared(tmp_path, "vit")
    assert set(control_of(run, part).names) == {"net.vit.layers.0.attention.q_proj", "net.vit.layers.0.mlp.fc1"}
    assert any("mixes its channels" in note or "free parameter" in note for note in run.report.notes)
    strict = make_run(tmp_path, small("vit"), dataset("vit"))
    strict.options = StepOptions(strict=True)
    with pytest.raises(RequestError, match="cannot be handled"):
        L0().prepare(strict, None)


def test_one_unit_of_a_group_stays_when_all_gates_close(tmp_path):
    run, part = prepared(tmp_path)
    for gate in control_of(run, part).gates:
        gate.log_alpha.data.fill_(-8.0)
    part.finish(run, None)
    assert [run.model.net.net[i].out_channels for i in (0, 3)] == [1, 1]
    assert run.model.net.net[8].out_features == 1


def test_weight_gates_are_baked_to_zeros_that_later_steps_hold(tmp_path):
    run, part = prepared(tmp_path, gates="weights")
    control = control_of(run, part)
    weight = run.model.net.net[0].layer.weight.detach().clone()
    log_alpha = control.gates[0].log_alpha
    with torch.no_grad():
        log_alpha.view(-1)[::2] = -5.0
        log_alpha.view(-1)[1::2] = 0.0
    part.finish(run, None)
    baked = run.model.net.net[0].weight
    assert torch.equal(baked.reshape(-1)[::2], torch.zeros(36))
    assert torch.allclose(baked.reshape(-1)[1::2], weight.reshape(-1)[1::2] * 0.5)
    assert isinstance(run.parts[-1], KeepZeros)
    assert "net.net.0.weight" in run.parts[-1].parameters


def test_loss_terms(tmp_path):
    batch = Batch(inputs("sequential"), None, torch.arange(16))
    run, part = prepared(tmp_path, penalty=2.0)
    control = control_of(run, part)
    control.warm.fill_(0.5)
    term = part.loss(run, batch, Output(torch.zeros(16, 3)))["l0"]
    assert term.item() == pytest.approx(2.0 * 0.5 * control.expected().item() / control.total)
    term.backward()
    assert all((gate.log_alpha.grad > 0).all() for gate in control.gates)

    run, part = prepared(tmp_path, constraint="l0_ball", keep=0.25)
    control = control_of(run, part)
    control.multiplier.fill_(3.0)
    share = control.expected().item() / control.total
    assert part.loss(run, batch, Output(torch.zeros(16, 3)))["l0"].item() == pytest.approx(3 * (share - 0.25), rel=1e-5)


def test_multiplier_ascends_while_the_constraint_is_violated_and_starts_anew_when_it_holds(tmp_path):
    run, part = prepared(tmp_path, constraint="l0_ball")
    control = control_of(run, part)
    share = control.expected().item() / control.total
    control.ascend(0.4, 0.5)
    control.ascend(0.4, 0.5)
    assert control.multiplier.item() == pytest.approx(2 * 0.5 * (share - 0.4), rel=1e-5)
    control.ascend(1.0, 0.5)
    assert control.multiplier.item() == 0


@pytest.mark.parametrize("gates", ["units", "weights"])
def test_trim_closes_the_least_probable_until_k_are_left(tmp_path, gates):
    run, part = prepared(tmp_path, gates=gates, constraint="l0_ball", keep=0.5)
    control = control_of(run, part)
    k = control.total // 3
    for gate in control.gates:
        gate.to(memory_format=torch.channels_last) if gate.log_alpha.ndim == 4 else None
    before = torch.cat([gate.log_alpha.reshape(-1).clone() for gate in control.gates])
    closed = control.trim(k)
    after = torch.cat([mask.reshape(-1) for mask in control.kept()])
    assert 0.5 * k < control.left() <= k
    assert int((~after).sum()) == closed
    if gates == "weights":
        assert before[~after].max() <= before[after].min()


def test_duchis_projection_against_its_definition():
    generator = np.random.default_rng(0)
    for _ in range(20):
        v = generator.normal(size=30) * generator.uniform(0.1, 3)
        radius = generator.uniform(0.1, 10)
        got = project_l1(torch.from_numpy(v), radius).numpy()
        if np.abs(v).sum() <= radius:
            assert np.array_equal(got, v)
            continue
        mu = np.sort(np.abs(v))[::-1]  # fig. 1 of the paper
        j = np.arange(1, 31)
        rho = j[mu - (mu.cumsum() - radius) / j > 0].max()
        theta = (mu[:rho].sum() - radius) / rho
        assert np.allclose(got, np.sign(v) * np.maximum(np.abs(v) - theta, 0), atol=1e-12)
        assert np.abs(got).sum() == pytest.approx(radius)


def test_hard_thresholding_keeps_the_k_largest():
    assert project_l0(torch.tensor([3.0, -1.0, 2.0, -4.0]), 2).tolist() == [3, 0, 0, -4]
    assert project_l0(torch.tensor([1.0, 2.0]), 5).tolist() == [1, 2]


def test_weight_balls(tmp_path):
    layers = [torch.nn.Linear(4, 3), torch.nn.Linear(3, 2)]
    start = sum(layer.weight.abs().sum().item() for layer in layers)
    ball = WeightBall(layers, "l1", 0)
    assert ball.size() == pytest.approx(start, rel=1e-5)
    ball.project(0.4 * start)
    assert ball.size() == pytest.approx(0.4 * start, rel=1e-4)
    assert any((layer.weight == 0).any() for layer in layers)

    layers = [torch.nn.Linear(4, 3), torch.nn.Linear(3, 2)]
    with torch.no_grad():
        layers[0].weight *= 1e-4  # a small scale is no reason to go
    ball = WeightBall(layers, "l0", 2)
    ball.project(11)
    assert ball.size() == 11
    assert (layers[0].weight != 0).sum() > 2


@pytest.mark.parametrize("norm", ["l0", "l1"])
def test_unit_balls_take_whole_units(norm):
    model = small("residual")
    x = inputs("residual")
    found, _ = find_units(model, Groups(model, x[:2]))
    ball = UnitBall(model, found, norm)
    start = ball.size()
    radius = {"l0": 0.5, "l1": 0.15}[norm] * start
    ball.project(radius)
    assert ball.size() <= radius * (1 + 1e-5)
    if norm == "l1":
        assert ball.size() == pytest.approx(radius, rel=1e-4)
    assert any((norms == 0).any() for norms in ball.norms())
    assert all((norms > 0).any() for norms in ball.norms())


def trained(folder, topology="sequential", epochs=4, **arguments):
    run = make_run(folder, small(topology), dataset(topology), max_epochs=epochs, optimizer=Optimizer(lr=3e-3))
    run.report = Collected()
    compress(run, "l0", L0(**arguments), StepOptions(recover=Recover(lr=1.0)), Fitter(folder))
    return run


def test_the_penalty_removes_units_in_a_fit_and_repeats(tmp_path):
    first = trained(tmp_path / "a", penalty=20.0, gate_lr=0.6, epochs=8)
    again = trained(tmp_path / "b", penalty=20.0, gate_lr=0.6, epochs=8)
    assert first.model.net.net[8].out_features < 10
    assert [e["channels"] for e in first.model.changes] == [e["channels"] for e in again.model.changes]
    assert all(torch.equal(p, q) for p, q in zip(first.model.parameters(), again.model.parameters(), strict=True))
    epoch = first.history[-1].epochs[-1]
    assert {"train/l0", "l0/expected", "l0/left", "l0/objective"} <= set(epoch)
    assert first.report.values["l0_expected"] > 0


@pytest.mark.parametrize(("gates", "method"), [("units", "lagrangian"), ("weights", "projection")])
def test_l0_ball_holds_exactly(tmp_path, gates, method):
    run = trained(tmp_path, constraint="l0_ball", gates=gates, method=method, k=600)
    weights = [m.weight for m in run.model.modules() if isinstance(m, torch.nn.Conv2d | torch.nn.Linear)]
    left = sum(int((w != 0).sum()) for w in weights)
    assert 300 < left <= 600
    assert run.history[-1].best_epoch >= 2  # earlier epochs do not meet the constraint


def test_l1_ball_holds_in_the_end(tmp_path):
    run = trained(tmp_path, constraint="l1_ball", gates="weights", threshold=20.0)
    weights = [m.weight for m in run.model.modules() if isinstance(m, torch.nn.Conv2d | torch.nn.Linear)]
    assert sum(w.abs().sum().item() for w in weights) == pytest.approx(20, rel=1e-3)


def test_a_constraint_that_cannot_hold_says_so(tmp_path):
    with pytest.raises(RequestError, match="cannot be reached: at least"):
        prepared(tmp_path, constraint="l0_ball", k=5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"gates": "layers"}, "gates: got 'layers'"),
        ({"keep": 0.0}, "keep: got 0.0"),
        ({"k": 10}, "k: got 10"),
        ({"threshold": 1.0}, "threshold: got 1.0"),
        ({"penalty": -1.0}, "penalty: got -1.0"),
        ({"constraint": "l2_ball"}, "constraint: got 'l2_ball'"),
    ],
)
def test_arguments_out_of_range(arguments, message):
    with pytest.raises(RequestError, match=message):
        L0(**arguments)
