"""The Gaussian constraint: smoothed ℓ0, its operators, the sparse file, and removal that changes nothing."""

import math

import numpy as np
import pytest
import torch
from torch import nn
from train.train_fakes import data, make_run, same, weights

from bigopt.pipeline import driver
from bigopt.pipeline.notes import Collected
from bigopt.train import Fitter
from bigopt.vocabulary.batch import Batch, Output
from bigopt.vocabulary.errors import RequestError
from bigopt.vocabulary.network import Network
from bigopt.vocabulary.part import Part
from bigopt.vocabulary.settings import Optimizer, Recover, StepOptions
from bigopt_plugins.compression.gaussian_constraint._operator import (
    LAPLACIAN,
    LAPLACIAN_1D,
    Operator,
    convolution_matrix,
    operator_for,
    smoothed_l0,
)
from bigopt_plugins.compression.gaussian_constraint._representation import Sparse, load, save
from bigopt_plugins.compression.gaussian_constraint.plugin import GaussianConstraint

BLUR = ((0.0, 0.1, 0.0), (0.1, 1.0, 0.2), (0.0, 0.1, 0.0))
STILL = StepOptions(recover=Recover(epochs=0))


def net(seed=0):
    torch.manual_seed(seed)
    layers = nn.Sequential(
        nn.Conv2d(1, 6, 3, padding=1),
        nn.BatchNorm2d(6),
        nn.ReLU(),
        nn.Conv2d(6, 8, 3, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(8 * 36, 12),
        nn.ReLU(),
        nn.Linear(12, 3),
    )
    norm = layers[1]
    nn.init.uniform_(norm.bias, 0.5, 1.5)
    norm.running_mean.uniform_(-1, 1)
    norm.running_var.uniform_(0.5, 1.5)
    return Network(layers).eval()


def a_run(folder, **settings):
    run = make_run(folder, net(), data(image=True), **settings)
    run.report = Collected()
    return run


def test_smoothed_l0_is_the_papers_and_counts_as_sigma_vanishes():
    z = torch.tensor([0.0, 0.5, -1.0, 3.0], dtype=torch.float64)
    expected = sum(1 - math.exp(-(v**2) / (2 * 0.7**2)) for v in (0.0, 0.5, -1.0, 3.0))
    assert smoothed_l0(z, 0.7).item() == pytest.approx(expected, rel=1e-12)
    assert smoothed_l0(z, 1e-3).item() == pytest.approx(3.0)
    z.requires_grad_()
    (gradient,) = torch.autograd.grad(smoothed_l0(z, 0.7), z)
    torch.testing.assert_close(gradient, (z / 0.49 * (-(z**2) / 0.98).exp()).detach())


def test_the_laplacian_with_zeros_outside_is_the_textbook_matrix_and_can_be_inverted():
    line = convolution_matrix((1, 5), LAPLACIAN_1D).numpy()
    np.testing.assert_array_equal(line, 2 * np.eye(5) - np.eye(5, k=1) - np.eye(5, k=-1))
    n = 3
    one = 2 * np.eye(n) - np.eye(n, k=1) - np.eye(n, k=-1)
    plane = convolution_matrix((n, n), LAPLACIAN)
    np.testing.assert_array_equal(plane.numpy(), np.kron(one, np.eye(n)) + np.kron(np.eye(n), one))
    assert torch.linalg.eigvalsh(plane).min() == pytest.approx(8 * math.sin(math.pi / (2 * (n + 1))) ** 2)
    torch.testing.assert_close(torch.linalg.inv(plane) @ plane, torch.eye(n * n, dtype=torch.float64))


def test_a_given_kernel_slides_over_the_plane_of_each_filter():
    layer = nn.Conv2d(2, 3, 5)
    operator = operator_for(layer, "kernel", BLUR)
    kernel = torch.tensor(BLUR)[None, None]
    expected = nn.functional.conv2d(layer.weight.reshape(6, 1, 5, 5), kernel, padding=1).reshape(3, 2, 5, 5)
    torch.testing.assert_close(operator.sparse(layer.weight), expected)
    torch.testing.assert_close(operator.rebuild(operator.sparse(layer.weight.double())), layer.weight.double())
    linear = nn.Linear(7, 2)
    along = operator_for(linear, "kernel", BLUR)
    expected = nn.functional.conv1d(linear.weight[:, None], torch.tensor([[[0.1, 1.0, 0.2]]]), padding=1)[:, 0]
    torch.testing.assert_close(along.sparse(linear.weight), expected)


@pytest.mark.parametrize("name", ["identity", "laplacian", "kernel"])
def test_a_step_is_the_gradient_of_the_gaussian_function(name):
    torch.manual_seed(0)
    layer = nn.Conv2d(2, 3, 3)
    operator = operator_for(layer, name, BLUR)
    weight = layer.weight.detach().double().requires_grad_()
    (gradient,) = torch.autograd.grad(smoothed_l0(operator.sparse(weight), 0.2), weight)
    bound = 1.0 if operator.matrix is None else torch.linalg.svdvals(operator.matrix)[0].item() ** 2
    torch.testing.assert_close(operator.descent(weight, 0.2), 0.04 * gradient / bound)
    before = smoothed_l0(operator.sparse(weight), 0.2)
    after = smoothed_l0(operator.sparse(weight - operator.descent(weight, 0.2)), 0.2)
    assert after < before


def test_the_fit_on_a_support_is_least_squares():
    torch.manual_seed(0)
    layer = nn.Conv2d(2, 3, 3)
    operator = operator_for(layer, "laplacian", ())
    weight = layer.weight.detach().double()
    keep = torch.rand(weight.shape) < 0.5
    z = operator.cut(weight, keep)
    assert not z[~keep].any()
    row, mask = weight.reshape(-1, 9)[4].numpy(), keep.reshape(-1, 9)[4].numpy()
    expected, *_ = np.linalg.lstsq(operator.inverse.numpy()[:, mask], row, rcond=None)
    np.testing.assert_allclose(z.reshape(-1, 9)[4].numpy()[mask], expected, atol=1e-10)
    plain = operator.rebuild(operator.sparse(weight) * keep)
    assert (operator.rebuild(z) - weight).norm() < (plain - weight).norm()


def test_the_loss_reaches_the_weights_and_nothing_else(tmp_path):
    run = a_run(tmp_path)
    part = GaussianConstraint(penalty=2.0, solver="loss", operator="laplacian")
    batch, output = Batch(torch.zeros(1), None, torch.zeros(1)), Output(torch.zeros(1))
    assert part.loss(run, batch, output) == {}
    part._state = part._found(run)[0]
    part._state.measure()
    part._sigma = 0.5
    term = part.loss(run, batch, output)["gaussian"]
    total, count = 0.0, 0
    for layer in (run.model.net[i] for i in (0, 3, 6, 8)):
        operator = operator_for(layer, "laplacian", ())
        z = operator.sparse(layer.weight.detach().double())
        total += smoothed_l0(z, 0.5 * z.square().mean().sqrt()).item()
        count += z.numel()
    assert term.item() == pytest.approx(2.0 * total / count, rel=1e-5)
    term.backward()
    reached = {name for name, p in run.model.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
    assert reached == {"net.0.weight", "net.3.weight", "net.6.weight", "net.8.weight"}


def test_without_a_loss_to_hold_them_small_entries_shrink_by_the_penalty(tmp_path):
    class NoLoss(Part):
        def loss(self, run, batch, output):
            return {"task": 0 * output.logits.sum()}

    run = a_run(tmp_path, optimizer=Optimizer(name="sgd", lr=1.0, weight_decay=0.0), parts=[NoLoss()])
    with torch.no_grad():
        run.model.net[3].weight[0, 0] = 1e-6
        run.model.net[3].weight[1, 0] = 5.0
    part = GaussianConstraint(penalty=2.0, sigma=(1.0, 0.5), epochs=4, cut=0.0)
    part.prepare(run, Fitter(tmp_path))
    weight = run.model.net[3].weight.detach()
    # Π(1 - μ_t) over 16 steps with Σμ_t = 2, along the cosine
    rates = [(1 + math.cos(math.pi * t / 16)) / 2 for t in range(16)]
    expected = math.prod(1 - 2.0 * rate / sum(rates) for rate in rates)
    torch.testing.assert_close(weight[0, 0] / 1e-6, torch.full((3, 3), expected), rtol=1e-3, atol=0)
    torch.testing.assert_close(weight[1, 0], torch.full((3, 3), 5.0))


@pytest.mark.parametrize("operator", ["identity", "laplacian", "kernel"])
@pytest.mark.parametrize("epochs", [0, 2])
def test_z_is_sparse_also_after_the_recovery_and_the_file_rebuilds_the_weights(tmp_path, operator, epochs):
    run = a_run(tmp_path)
    part = GaussianConstraint(penalty=0.0, ratio=0.6, operator=operator, kernel=BLUR if operator == "kernel" else ())
    driver.compress(run, "g", part, StepOptions(recover=Recover(epochs=epochs)), Fitter(tmp_path))
    rows = run.report.tables["gaussian_constraint"]
    total, left = sum(row["weights"] for row in rows), sum(row["nonzero"] for row in rows)
    assert left <= 0.4 * total + 2  # fewer where units went whose other weights had vanished
    found = GaussianConstraint.rebuild(tmp_path / run.report.values["representation"]["file"])
    for name, weight in found.items():
        torch.testing.assert_close(weight, run.model.get_submodule(name).weight.detach(), atol=1e-6, rtol=1e-5)
        layer = run.model.get_submodule(name)
        z = operator_for(layer, operator, BLUR).sparse(layer.weight.detach().double())
        row = next(row for row in rows if row["layer"] == name)
        assert int((z.abs() > 1e-5).sum()) <= row["nonzero"]
    dense = 4 * total
    ideal = 4 * left + total / 8  # values, and a bit for each place
    size = run.report.values["representation"]["bytes"]
    assert size < 0.6 * dense and size - ideal < 1500  # the rest is names
    if epochs:
        fresh = a_run(tmp_path / "fresh")
        assert not torch.equal(fresh.model.net[3].weight, run.model.net[3].weight)


def test_the_error_that_is_reported_is_that_of_the_cut(tmp_path):
    run = a_run(tmp_path)
    before = run.model.net[3].weight.detach().clone()
    part = GaussianConstraint(penalty=0.0, ratio=0.5)
    driver.compress(run, "g", part, STILL, Fitter(tmp_path))
    row = next(row for row in run.report.tables["gaussian_constraint"] if row["layer"] == "net.3")
    expected = (before - run.model.net[3].weight.detach()).norm() / before.norm()
    assert row["error"] == pytest.approx(expected.item(), rel=1e-4)
    assert run.report.values["worst_error"] >= row["error"] > 0


@pytest.mark.parametrize("operator", ["identity", "laplacian"])
def test_units_whose_weights_vanished_are_removed_and_the_outputs_are_those_of_the_zeros(tmp_path, operator):
    run = a_run(tmp_path)
    with torch.no_grad():
        run.model.net[0].weight[[1, 4]] *= 1e-5
        run.model.net[3].weight[2] *= 1e-5
        run.model.net[6].weight[[0, 5, 7]] *= 1e-6
        if operator == "identity":
            run.model.net[8].weight[:, 3] *= 1e-5  # nobody reads this unit
    part = GaussianConstraint(penalty=0.0, operator=operator, cut=0.02, sigma=(1.0, 0.1))
    fit = Fitter(tmp_path)
    part.prepare(run, fit)
    x = torch.rand(4, 1, 6, 6)
    zeroed = run.model.eval()(x)
    part.finish(run, fit)
    net = run.model.net
    # the inverse of the Laplacian amplifies the rounding of the weights to float32
    torch.testing.assert_close(run.model.eval()(x), zeroed, atol=1e-5 if operator == "identity" else 1e-4, rtol=0)
    assert (net[0].out_channels, net[3].out_channels) == (4, 7)
    assert net[6].out_features == (8 if operator == "identity" else 9)
    found = load(tmp_path / run.report.values["representation"]["file"])
    for name, weight in found.items():
        torch.testing.assert_close(weight, run.model.get_submodule(name).weight.detach(), atol=1e-5, rtol=1e-4)


def test_exported_is_in_memory(tmp_path):
    from bigopt.measure import Session, export_onnx

    run = a_run(tmp_path)
    part = GaussianConstraint(penalty=0.0, ratio=0.9, operator="laplacian")
    driver.compress(run, "g", part, STILL, Fitter(tmp_path))
    x = torch.rand(4, 1, 6, 6)
    path = export_onnx(run.model, x, tmp_path / "model.onnx")
    torch.testing.assert_close(Session(path).run(x), run.model.eval()(x).detach(), atol=1e-4, rtol=0)


def test_the_training_makes_the_representation_sparser_than_cutting_alone(tmp_path):
    densities = []
    for number, penalty in enumerate((0.0, 5.0)):
        run = a_run(tmp_path / str(number), optimizer=Optimizer(lr=0.02))
        part = GaussianConstraint(penalty=penalty, epochs=3)
        outcome = driver.compress(run, "g", part, STILL, Fitter(tmp_path / str(number)))
        densities.append(run.report.values["density"])
        assert run.monitor.metric == "val/accuracy"
        assert outcome.epochs == (3 if penalty else 0)
    assert densities[1] < densities[0] - 0.2


def test_the_same_seed_gives_the_same_result_and_a_resumed_run_too(tmp_path):
    def compressed(folder):
        run = a_run(folder)
        driver.compress(run, "g", GaussianConstraint(epochs=2), StepOptions(recover=Recover(epochs=1)), Fitter(folder))
        return run

    first, again = compressed(tmp_path / "a"), compressed(tmp_path / "b")
    resumed = compressed(tmp_path / "a")
    assert same(weights(first.model), weights(again.model)) and same(weights(first.model), weights(resumed.model))
    names = {run.report.values["representation"]["file"] for run in (first, again, resumed)}
    assert len(names) == 1


def test_rounds_reach_the_ratio_and_a_scan_cuts_one_layer(tmp_path, monkeypatch):
    run = a_run(tmp_path)
    part = GaussianConstraint(penalty=0.0, ratio=0.8)
    part.prepare(run, Fitter(tmp_path))
    monkeypatch.setattr(part, "_silence", lambda run, state: None)  # silent units would make it sparser still
    for share in (0.5, 0.4, 1 / 3):
        part.apply(run, share)
        part._state.project()
    layers = [run.model.net[i].weight for i in (0, 3, 6, 8)]
    left, total = sum(int((w != 0).sum()) for w in layers), sum(w.numel() for w in layers)
    assert left == pytest.approx(0.2 * total, abs=3)
    run.model = net()
    part = GaussianConstraint()
    assert part.layers(run) == ["net.0", "net.3", "net.6", "net.8"]
    before = weights(run.model)
    part.apply(run, 0.5, only="net.3")
    changed = {name for name, value in weights(run.model).items() if not torch.equal(value, before[name])}
    assert changed == {"net.3.weight"}
    assert int((run.model.net[3].weight == 0).sum()) == 216


def test_max_drop_bisects_over_the_ratio(tmp_path, monkeypatch):
    run = a_run(tmp_path)
    run.baseline = driver.frozen_copy(run.model)

    def score(_run, model):
        return 0.9 - 0.1 * float((model.net[6].weight == 0).double().mean() > 0.65)

    monkeypatch.setattr(driver, "score", score)
    options = StepOptions(recover=Recover(epochs=0), max_drop=0.05)
    outcome = driver.compress(run, "g", GaussianConstraint(penalty=0.0, ratio=0.5), options, Fitter(tmp_path))
    assert outcome.strength == 0.6
    file = run.report.values["representation"]["file"]
    torch.testing.assert_close(load(tmp_path / file)["net.6"], run.model.net[6].weight.detach())


@pytest.mark.parametrize("kernel", [LAPLACIAN_1D, ((0.3, 1.0, -0.2),)])
def test_long_rows_are_projected_orthogonally_however_ill_conditioned(kernel):
    torch.manual_seed(0)
    operator = Operator.of((1, 200), kernel)
    weight = torch.randn(3, 200, dtype=torch.float64)
    keep = torch.rand(3, 200) < 0.3
    z = operator.cut(weight, keep)
    got = operator.rebuild(z)
    for row in range(3):
        gone = operator.matrix[~keep[row]].numpy()
        expected = weight[row].numpy() - np.linalg.pinv(gone) @ (gone @ weight[row].numpy())
        np.testing.assert_allclose(got[row].numpy(), expected, atol=1e-7)
    assert (got - weight).norm() < weight.norm()  # the zero is in the subspace, so nothing nearest is further away
    again = operator.projection(keep)(got)
    torch.testing.assert_close(again, got, atol=1e-7, rtol=0)


@pytest.mark.parametrize("share", [0.3, 0.99])
def test_the_file_holds_what_was_put_in(tmp_path, share):
    torch.manual_seed(0)
    z = torch.randn(7, 5, 3, 3) * (torch.rand(7, 5, 3, 3) > share)
    operator = Operator.of((3, 3), LAPLACIAN)
    row = Sparse(torch.randn(4, 11), Operator.of((1, 11), ()), torch.tensor([0, 3, 10]))
    path, size = save({"a": Sparse(z, operator, torch.arange(5)), "b": row}, tmp_path, "z")
    assert size == path.stat().st_size
    found = load(path)
    torch.testing.assert_close(found["a"], operator.rebuild(z), atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(found["b"], row.z[:, [0, 3, 10]])


def test_a_file_that_is_none_of_these_is_refused(tmp_path):
    from bigopt.store import save_tensors

    path = tmp_path / "other.safetensors"
    save_tensors(path, {"w": torch.ones(2)})
    with pytest.raises(RequestError, match="no sparse representation"):
        GaussianConstraint.rebuild(path)


def test_a_kernel_that_cannot_be_inverted_is_named_or_refused(tmp_path):
    run = a_run(tmp_path)
    part = GaussianConstraint(penalty=0.0, operator="kernel", kernel=((1.0, 0.0, -1.0),))  # a difference: singular on 3
    part.prepare(run, Fitter(tmp_path))
    assert any("net.3 was left as it was: the kernel cannot be inverted on 3×3" in note for note in run.report.notes)
    run.options = StepOptions(strict=True)
    with pytest.raises(RequestError, match="cannot be inverted"):
        part.prepare(run, Fitter(tmp_path))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"penalty": -1.0}, "penalty: got -1.0"),
        ({"operator": "fourier"}, "operator: got 'fourier'"),
        ({"operator": "kernel"}, "kernel: got \\[\\]"),
        ({"operator": "kernel", "kernel": ((1.0, 2.0),)}, "odd number of rows"),
        ({"kernel": ((1.0,),)}, "but the operator is identity"),
        ({"sigma": (0.1, 1.0)}, "sigma: got"),
        ({"solver": "newton"}, "solver: got"),
        ({"ratio": 1.0}, "ratio: got 1.0"),
    ],
)
def test_arguments_out_of_range(arguments, message):
    with pytest.raises(RequestError, match=message):
        GaussianConstraint(**arguments)
