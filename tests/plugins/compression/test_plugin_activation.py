"""Polynomials and staircases: fits against numpy, the papers' gradients, export, replay, and further steps."""

import numpy as np
import onnx
import pytest
import torch
from gated_nets import TRANSFORMERS, inputs, small
from torch import nn
from torch.nn import functional
from train.train_fakes import data, make_run

from bigopt.measure import export_onnx, export_pt2
from bigopt.measure.session import Session
from bigopt.pipeline.driver import compress
from bigopt.pipeline.notes import Collected
from bigopt.pipeline.structure import load_structure, save_structure
from bigopt.surgery import Groups
from bigopt.train import Fitter
from bigopt.vocabulary.errors import RequestError
from bigopt.vocabulary.network import Network
from bigopt.vocabulary.settings import StepOptions
from bigopt_plugins.compression.activation._polynomial import Moments, Polynomial
from bigopt_plugins.compression.activation._staircase import Staircase, best_step, lsq, pact
from bigopt_plugins.compression.activation.plugin import Activation
from bigopt_plugins.compression.l0.plugin import L0
from bigopt_plugins.compression.quantization.plugin import Quantization


def prepared(tmp_path, topology="sequential", model=None, options=None, **arguments):
    run = make_run(tmp_path, small(topology) if model is None else model, data(image=True))
    run.report = Collected()
    run.options = options or StepOptions()
    part = Activation(**arguments)
    part.prepare(run, None)
    return run, part


def seen_by(run, name, model):
    """What a module is given on all training samples."""
    kept = []
    handle = model.get_submodule(name).register_forward_pre_hook(lambda _m, inputs: kept.append(inputs[0].clone()))
    with torch.no_grad():
        model.eval()(run.data.train.x)
    handle.remove()
    return kept[0]


@pytest.mark.parametrize("order", [2, 3])
def test_fit_is_numpys_least_squares_on_what_the_layer_sees(tmp_path, order):
    run, _ = prepared(tmp_path, order=order, samples=64)
    name = "net.net.2"
    x = seen_by(run, name, small("sequential")).double().numpy().ravel()
    expected = np.polynomial.polynomial.polyfit(x, np.maximum(x, 0), order)
    module = run.model.get_submodule(name)
    assert isinstance(module, Polynomial)
    assert [c.item() for c in module.coefficients] == pytest.approx(expected, abs=1e-5)
    rmse = np.sqrt(np.mean((np.polynomial.polynomial.polyval(x, expected) - np.maximum(x, 0)) ** 2))
    assert run.report.values["activation_rmse"][name] == pytest.approx(rmse, rel=1e-4)
    assert (module.low.item(), module.high.item()) == pytest.approx((x.min(), x.max()))


def test_one_fit_per_channel(tmp_path):
    run, _ = prepared(tmp_path, per="channel", samples=64)
    x = seen_by(run, "net.net.2", small("sequential")).double().numpy()
    module = run.model.get_submodule("net.net.2")
    for channel in range(8):
        flat = x[:, channel].ravel()
        expected = np.polynomial.polynomial.polyfit(flat, np.maximum(flat, 0), 2)
        assert [c[channel].item() for c in module.coefficients] == pytest.approx(expected, abs=1e-4)


def test_a_constant_channel_gets_its_value():
    moments = Moments(2, -1.0, 3.0)
    moments.add(torch.full((1, 50), 2.0), torch.full((1, 50), 5.0))
    coefficients, rmse = moments.solve()
    value = sum(c.item() * 2.0**k for k, c in enumerate(coefficients[:, 0]))
    assert value == pytest.approx(5.0, abs=1e-6)
    assert rmse.item() == pytest.approx(0, abs=1e-6)


def test_inputs_outside_of_the_observed_range_are_clamped():
    module = Polynomial(2, -1.0, 2.0)
    module.set(torch.tensor([0.5, 1.0, 2.0]))
    assert module(torch.tensor([-9.0, -1.0, 0.5, 2.0, 9.0])).tolist() == pytest.approx([1.5, 1.5, 1.5, 10.5, 10.5])
    module(torch.tensor([0.0, 1.0])).sum().backward()
    assert [c.grad.item() for c in module.coefficients] == [2, 1, 1]


def test_gradient_of_the_step_is_lsqs():
    # Q_P = 3, s = 0.5: x/s = -1 (below), 0.6, 1.7 (inside), 5 (above)
    x = torch.tensor([[-0.5, 0.3, 0.85, 2.5]], requires_grad=True)
    step = torch.tensor([0.5], requires_grad=True)
    out = lsq(x, step, 4)
    assert out.tolist() == [pytest.approx([0.0, 0.5, 1.0, 1.5])]
    out.sum().backward()
    slopes = [0.0, 1 - 0.6, 2 - 1.7, 3.0]
    assert step.grad.item() == pytest.approx(sum(slopes) / (4 * 3) ** 0.5, rel=1e-5)
    assert x.grad.tolist() == [[0, 1, 1, 0]]


def test_gradient_of_the_clipping_is_pacts():
    x = torch.tensor([-0.5, 0.3, 0.85, 2.5, 3.0], requires_grad=True)
    clip = torch.tensor([1.5], requires_grad=True)
    out = pact(x, clip, 4)
    assert out.tolist() == pytest.approx([0.0, 0.5, 1.0, 1.5, 1.5])
    out.sum().backward()
    assert clip.grad.item() == 2  # one for each x ≥ α
    assert x.grad.tolist() == [0, 1, 1, 0, 0]


def test_first_step_is_the_best_of_a_fine_grid():
    x = torch.randn(4000, generator=torch.Generator().manual_seed(0))
    step, rmse = best_step(x, x.relu(), 4)
    for other in np.linspace(0.3, 2, 40) * step:
        error = ((x / other).round().clamp(0, 3) * other - x.relu()).square().mean().sqrt().item()
        assert rmse <= error + 2e-3


FORMS = {
    "quadratic": {},
    "cubic_per_channel": {"order": 3, "per": "channel"},
    "lsq": {"form": "staircase", "levels": 8},
    "pact": {"form": "staircase", "levels": 4, "rule": "pact"},
}


@pytest.mark.parametrize("form", ["quadratic", "lsq"])
def test_exported_is_in_memory(tmp_path, form):
    run, _ = prepared(tmp_path, "residual", **FORMS[form])
    model, x = run.model.eval(), inputs("residual", 64)
    with torch.no_grad():
        expected = model(x)
    path = export_onnx(model, x[:2], tmp_path / "model.onnx")
    assert (Session(path).run(x) - expected).abs().max() < 1e-4
    kinds = [node.op_type for node in onnx.load(path).graph.node]
    assert kinds.count("QuantizeLinear") == kinds.count("DequantizeLinear") == (3 if form == "lsq" else 0)
    assert "Relu" not in kinds
    export_pt2(model, x[:2], tmp_path / "model.pt2")
    with torch.no_grad():
        assert (torch.export.load(tmp_path / "model.pt2").module()(x) - expected).abs().max() < 1e-4


@pytest.mark.parametrize("form", FORMS)
def test_replay_rebuilds(tmp_path, form):
    run, _ = prepared(tmp_path, "residual", **FORMS[form])
    fresh, x = small("residual"), inputs("residual")
    for entry in run.model.changes:
        assert entry["plugin"] == "activation"
        Activation.replay(fresh, entry)
    fresh.load_state_dict(run.model.state_dict())
    with torch.no_grad():
        assert torch.equal(fresh.eval()(x), run.model.eval()(x))


@pytest.mark.parametrize("form", ["cubic_per_channel", "lsq"])
def test_a_later_run_can_go_on_from_the_saved_structure(tmp_path, form):
    run, _ = prepared(tmp_path, **FORMS[form])
    x = inputs("sequential")
    groups = Groups(run.model, x[:2])
    for group in groups:
        groups.remove(group, [0, 2])
    save_structure(run.model, {"name": "none"}, run.model.changes, tmp_path)
    again = load_structure(tmp_path, lambda spec: small("sequential"))
    with torch.no_grad():
        assert torch.equal(again.eval()(x), run.model.eval()(x))
    assert again.changes == run.model.changes


@pytest.mark.parametrize("form", FORMS)
def test_channels_can_be_removed_afterwards(tmp_path, form):
    run, _ = prepared(tmp_path, **FORMS[form])
    x = inputs("sequential")
    groups = Groups(run.model, x[:2])
    for group in groups:
        groups.zero(group, [1, 3, 4])
    with torch.no_grad():
        zeroed = run.model.eval()(x)
    for group in groups:
        groups.remove(group, [1, 3, 4])
    net = run.model.net.net
    assert (net[0].out_channels, net[3].out_channels, net[8].in_features, net[8].out_features) == (5, 9, 81, 7)
    with torch.no_grad():
        assert (run.model(x) - zeroed).abs().max() < 1e-5


def test_gates_can_follow_a_polynomial_per_channel(tmp_path):
    run, _ = prepared(tmp_path, **FORMS["cubic_per_channel"])
    part = L0()
    part.prepare(run, None)
    control = part.modules(run)["l0"]
    assert control.names == ("net.net.0", "net.net.3", "net.net.8")
    for gate in control.gates:
        gate.close(torch.tensor([0, 5]))
    x = inputs("sequential")
    with torch.no_grad():
        gated = run.model.eval()(x)
        part.finish(run, None)
        assert (run.model.eval()(x) - gated).abs().max() < 1e-5
    assert run.model.net.net[0].out_channels == 6


@pytest.mark.parametrize("form", ["quadratic", "lsq"])
def test_quantization_can_follow(tmp_path, form):
    run, _ = prepared(tmp_path, "residual", **FORMS[form])
    x = run.data.train.x
    with torch.no_grad():
        before = run.model(x)
        Quantization(calibration="minmax", reduce_range=False).finish(run, lambda *a, **k: None)
        after = run.model(x)
    assert len(run.report.values["quantized_layers"]) == 4
    assert (before.argmax(1) == after.argmax(1)).float().mean() >= 0.9


@pytest.mark.parametrize("topology", TRANSFORMERS)
def test_transformers_activations_are_modules(topology):
    from bigopt_plugins.compression.activation._find import activations
    from bigopt_plugins.compression.activation._find import functional as calls

    model = small(topology)
    found = activations(model)
    assert [type(module).__name__ for module in found.values()] == ["GELUActivation"]
    assert not calls(model, inputs(topology, 2))


def test_calls_of_functions_are_named_and_left(tmp_path):
    class Calls(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.act, self.last = nn.Linear(36, 8), nn.SiLU(), nn.Linear(8, 3)

        def forward(self, x):
            return self.last(functional.relu(self.act(self.first(x.flatten(1)))))

    run, _ = prepared(tmp_path, model=Network(Calls()))
    assert isinstance(run.model.net.act, Polynomial)
    assert any(note.startswith("net was left as it was") and "relu" in note for note in run.report.notes)
    with pytest.raises(RequestError, match="net cannot be handled"):
        prepared(tmp_path, model=Network(Calls()), options=StepOptions(strict=True))


def test_pattern_and_ignore(tmp_path):
    run, _ = prepared(tmp_path, where=("net.net.2", "net.net.5"), options=StepOptions(ignore=("net.net.5",)))
    kinds = [type(run.model.net.net[i]).__name__ for i in (2, 5, 9)]
    assert kinds == ["Polynomial", "ReLU", "ReLU"]
    with pytest.raises(RequestError, match="fits no activation of the model: net.net.2"):
        prepared(tmp_path, where=("nothing",))


def test_working_in_place_does_not_spoil_the_fit(tmp_path):
    model = small("sequential")
    model.net.net[2] = nn.ReLU(inplace=True)
    in_place, _ = prepared(tmp_path, model=model)
    plain, _ = prepared(tmp_path)
    for a, b in zip(in_place.model.net.net[2].coefficients, plain.model.net.net[2].coefficients, strict=True):
        assert torch.equal(a, b)


def test_coefficients_do_not_decay_and_pacts_clipping_does(tmp_path):
    def decays(**arguments):
        run, part = prepared(tmp_path, **arguments)
        groups = part.param_groups(run, [{"params": list(run.model.parameters()), "lr": 1.0, "weight_decay": 0.5}])
        assert sum(len(g["params"]) for g in groups) == len(list(run.model.parameters()))
        names = {id(p): n for n, p in run.model.named_parameters()}
        return {names[id(p)]: g["weight_decay"] for g in groups for p in g["params"]}

    assert decays(per="channel")["net.net.2.coefficients.1"] == 0
    assert decays(form="staircase")["net.net.2.size"] == 0
    assert decays(form="staircase", rule="pact")["net.net.2.size"] == 0.01


@pytest.mark.parametrize("form", FORMS)
def test_recovery_trains_the_replacement_and_the_export_follows(tmp_path, form):
    run = make_run(tmp_path, small("residual"), data(image=True), max_epochs=4)
    part = Activation(**FORMS[form])
    probe = run.fork()
    part.prepare(probe, None)
    start = {name: p.detach().clone() for name, p in probe.model.named_parameters()}
    compress(run, "activation", part, StepOptions(), Fitter(tmp_path))
    moved = [n for n, p in run.model.named_parameters() if "coefficients" in n or n.endswith("size")]
    assert moved
    assert all(not torch.equal(start[n], dict(run.model.named_parameters())[n]) for n in moved)
    for module in run.model.eval().modules():
        if isinstance(module, Staircase):
            assert module._exported == pytest.approx(module.step().item())


def test_bits_follow_the_levels():
    assert Activation(form="staircase", levels=16).bits() == (32, 4)
    assert Activation(form="staircase", levels=5).bits() == (32, 3)
    assert Activation().bits() is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"order": 4}, "order: got 4"),
        ({"levels": 1}, "levels: got 1"),
        ({"form": "staircase", "per": "channel"}, "per: got 'channel'"),
        ({"where": ()}, "where: got no pattern"),
        ({"rule": "dorefa"}, "rule: got 'dorefa'"),
    ],
)
def test_arguments_out_of_range(arguments, message):
    with pytest.raises(RequestError, match=message):
        Activation(**arguments)
