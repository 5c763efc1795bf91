"""Distillation: the papers' formulas, gradients to the student alone, answers cached as computed, what comes out."""

import itertools

import numpy as np
import pytest
import torch
from distillation_fakes import Brighter, Build, net, prepared, step, untrained
from torch import nn
from train.train_fakes import cnn, data, make_run, mlp, same, weights

from bigopt.train import Fitter
from bigopt.vocabulary.batch import Batch, Output, Role
from bigopt.vocabulary.data import TensorSplit
from bigopt.vocabulary.errors import RequestError
from bigopt.vocabulary.part import Part
from bigopt.vocabulary.task import Task
from bigopt_plugins.transfer.distillation._attention import attention_loss, attention_map
from bigopt_plugins.transfer.distillation._hints import Regressor, hint, hint_loss
from bigopt_plugins.transfer.distillation._logits import by_validation, mixture
from bigopt_plugins.transfer.distillation._relational import angle_loss, distance_loss
from bigopt_plugins.transfer.distillation.plugin import Distillation


@pytest.fixture
def run(tmp_path):
    return make_run(tmp_path, net(), data(image=True), max_epochs=2)


# ---- formulas


def softmax(z):
    e = np.exp(z - z.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


def test_answers_are_hintons_loss_with_t_squared(run):
    part = prepared(run, Distillation("fake", 0, temperature=3.0, alpha=0.4), net(6, seed=3))
    terms = step(run, part)
    x, y = run.data.train.x[:8], run.data.train.y[:8].numpy()
    student = run.model(x).detach().numpy().astype(float)
    teacher = part._models[0](x).numpy().astype(float)
    p, q = softmax(teacher / 3), softmax(student / 3)
    assert terms["distillation"].item() == pytest.approx(0.4 * 9 * (p * np.log(p / q)).sum(1).mean(), rel=1e-4)
    assert terms["task"].item() == pytest.approx(-0.6 * np.log(softmax(student)[range(8), y]).mean(), rel=1e-4)


def test_several_teachers_answer_with_the_mean_of_their_softened_probabilities():
    torch.manual_seed(0)
    answers = [torch.randn(5, 3) * 4, torch.randn(5, 3) * 4]
    common = mixture(answers, [0.25, 0.75], 3.0, "classification")
    expected = 0.25 * softmax(answers[0].numpy() / 3) + 0.75 * softmax(answers[1].numpy() / 3)
    assert softmax(common.numpy() / 3) == pytest.approx(expected, abs=1e-6)
    assert mixture(answers, [0.0, 1.0], 3.0, "classification") == pytest.approx(
        3 * torch.log_softmax(answers[1] / 3, 1), abs=1e-5
    )
    assert mixture(answers, [0.25, 0.75], 3.0, "regression") == pytest.approx(0.25 * answers[0] + 0.75 * answers[1])
    assert mixture(answers[:1], [1.0], 3.0, "classification") is answers[0]


def test_weights_by_validation_are_those_of_the_likeliest_mixture():
    torch.manual_seed(1)
    y = torch.arange(3).repeat(40)
    answers = [torch.randn(120, 3) + s * torch.eye(3)[y] for s in (2.0, 1.0, 0.0)]
    found = by_validation(answers, y, "classification")
    likely = torch.stack([a.softmax(1)[torch.arange(120), y] for a in answers]).double()
    grid = [(a, b, 1 - a - b) for a in np.arange(0, 1.01, 0.02) for b in np.arange(0, 1.005 - a, 0.02)]
    best = max(grid, key=lambda w: (torch.tensor(w).double() @ likely).clamp_min(1e-300).log().sum().item())
    assert found == pytest.approx(best, abs=0.03) and sum(found) == pytest.approx(1)
    targets = torch.randn(50, 1)
    errors = [targets + 1.0, targets + 2.0]
    assert by_validation(errors, targets, "regression") == pytest.approx([4 / 5, 1 / 5])


def test_attention_is_the_paper_s_normalised_energy():
    torch.manual_seed(0)
    a, b = torch.randn(2, 3, 4, 4), torch.randn(2, 5, 2, 2)
    total = 0.0
    for row in range(2):
        q = (a[row].numpy() ** 2).sum(0).reshape(2, 2, 2, 2).mean((1, 3)).ravel()  # onto the coarser grid
        r = (b[row].numpy() ** 2).sum(0).ravel()
        total += ((q / np.sqrt((q**2).sum()) - r / np.sqrt((r**2).sum())) ** 2).sum()
    found = attention_loss(attention_map(a, (2, 2)), attention_map(b, (2, 2)))
    assert found.item() == pytest.approx(total / 2, rel=1e-5)
    tokens = torch.randn(2, 6, 3)
    energy = tokens.square().sum(2)
    assert attention_map(tokens) == pytest.approx(energy / energy.norm(dim=1, keepdim=True), rel=1e-5)


def test_hints_are_half_the_mean_squared_error_behind_the_regressor():
    torch.manual_seed(0)
    student, teacher, regressor = torch.randn(2, 3, 4, 4), torch.randn(2, 5, 2, 2), Regressor(3, 5, maps=True)
    w = regressor.layer.weight.detach().numpy()[:, :, 0, 0]
    small = student.numpy().reshape(2, 3, 2, 2, 2, 2).mean((3, 5))
    foretold = np.einsum("oc,nchw->nohw", w, small) + regressor.layer.bias.detach().numpy()[None, :, None, None]
    found = hint_loss(regressor, hint(student, (2, 2)), hint(teacher, (2, 2)))
    assert found.item() == pytest.approx(((foretold - teacher.numpy()) ** 2).mean() / 2, rel=1e-5)
    tokens = torch.randn(2, 6, 3)
    assert hint(tokens, (3,)) == pytest.approx(tokens.reshape(2, 3, 2, 3).mean(2), abs=1e-6)
    assert hint(tokens, (6,)) is not None and torch.equal(hint(tokens, (6,)), tokens)


def huber(d):
    return 0.5 * d * d if abs(d) <= 1 else abs(d) - 0.5


def test_distances_and_angles_are_parks_against_plain_loops():
    torch.manual_seed(0)
    s, t = torch.randn(6, 3, dtype=torch.float64) * 3, torch.randn(6, 4, dtype=torch.float64)
    a, b = s.numpy(), t.numpy()
    pairs = list(itertools.combinations(range(6), 2))

    def psi(x):
        found = {p: np.linalg.norm(x[p[0]] - x[p[1]]) for p in pairs}
        return {p: d / np.mean(list(found.values())) for p, d in found.items()}

    ps, pt = psi(a), psi(b)
    expected = np.mean([huber(ps[p] - pt[p]) for p in pairs])
    assert distance_loss(s, t).item() == pytest.approx(expected, rel=1e-9)

    def cosine(x, i, j, k):
        e, f = x[i] - x[j], x[k] - x[j]
        return e @ f / np.linalg.norm(e) / np.linalg.norm(f)

    triples = list(itertools.permutations(range(6), 3))
    expected = np.mean([huber(cosine(a, *p) - cosine(b, *p)) for p in triples])
    assert angle_loss(s, t).item() == pytest.approx(expected, rel=1e-9)
    assert distance_loss(s[:1], t[:1]).item() == 0 and angle_loss(s[:2], t[:2]).item() == 0


def test_relations_have_gradients_where_two_rows_are_equal():
    x = torch.randn(5, 3)
    x[1] = x[0]
    x.requires_grad_()
    (distance_loss(x, torch.randn(5, 4)) + angle_loss(x, torch.randn(5, 4))).backward()
    assert torch.isfinite(x.grad).all() and x.grad.abs().sum() > 0


# ---- gradients


TERMS = ["distillation", "hints", "attention", "distance", "angle"]


@pytest.mark.parametrize("term", TERMS)
def test_each_term_trains_the_student_and_nothing_of_the_teacher(run, term):
    how = {"hints": 1.0, "attention": 1.0, "distance": 1.0, "angle": 1.0}
    part = prepared(run, Distillation("fake", 0, **how), net(6, seed=3))
    terms = step(run, part)
    assert set(terms) == {*TERMS, "task"}
    terms[term].backward()
    first = run.model.net[0][0].weight.grad
    assert first is not None and first.abs().sum() > 0
    assert all(p.grad is None and not p.requires_grad for p in part._models.parameters())
    head = run.model.net[3].weight.grad
    assert (head is not None) == (term == "distillation")
    regressors = [p.grad for m in part._state["regressors"].values() for p in m.parameters()]
    assert len(regressors) == 2 and all((g is not None and g.abs().sum() > 0) == (term == "hints") for g in regressors)


def test_the_fit_trains_student_and_regressor_and_leaves_the_teacher_bit_for_bit(run, tmp_path):
    part = prepared(run, Distillation("fake", 0, hints=1.0, attention=1.0), net(6, seed=3))
    teacher, student = weights(part._models), weights(run.model)
    Fitter(tmp_path)(run, 1, parts=[part])
    assert same(teacher, weights(part._models)) and not same(student, weights(run.model))


def test_unlabelled_rows_are_distilled_and_have_no_task_loss(run):
    part = prepared(run, Distillation("fake", 0), net(6, seed=3))
    x = run.data.train.x[:4]
    batch = part.batch(run, Batch(x, None, torch.arange(4), torch.full((4,), int(Role.UNLABELLED))))
    assert set(part.loss(run, batch, Output(run.model(x)))) == {"distillation"}


# ---- the cache


def fitted(folder, cache: str, before: Part | None = None, after: Part | None = None):
    run = make_run(folder, net(), data(image=True), max_epochs=3)
    how = {"hints": 1.0, "attention": 1.0, "distance": 1.0}
    part = Distillation("fake", 0, cache=cache, **how)
    run.parts = [other for other in (before, part, after) if other is not None]
    prepared(run, part, net(6, seed=3))
    Fitter(folder)(run)
    return run, part._state["answers"].hits


def test_cached_training_equals_computed_training_bit_for_bit(tmp_path):
    computed, none = fitted(tmp_path / "a", "off")
    cached, hits = fitted(tmp_path / "b", "auto")
    assert (none, hits) == (0, 8)  # in the first of three epochs, every sample is new
    assert same(weights(computed.model), weights(cached.model))
    for one, other in zip(computed.history[0].epochs, cached.history[0].epochs, strict=True):
        assert {n: v for n, v in one.items() if n != "seconds"} == {n: v for n, v in other.items() if n != "seconds"}


@pytest.mark.parametrize("inplace", [False, True], ids=["new", "inplace"])
@pytest.mark.parametrize("place", ["before", "after"])
def test_augmented_batches_are_computed(tmp_path, inplace, place):
    _, hits = fitted(tmp_path, "auto", **{place: Brighter(inplace)})
    assert hits == 0


def test_the_answers_are_of_one_split_and_of_what_fits(run, monkeypatch):
    part = prepared(run, Distillation("fake", 0), net(6, seed=3))
    kept = part._state["answers"]
    first = step(run, part)["distillation"]
    assert step(run, part)["distillation"].item() == pytest.approx(first.item(), rel=1e-6) and kept.hits == 1
    run.data.train = TensorSplit(run.data.train.x.flip(0), run.data.train.y.flip(0))
    assert step(run, part)["distillation"].item() != first.item()
    assert step(run, part)["distillation"].item() != first.item() and kept.hits == 2
    monkeypatch.setattr("bigopt.vocabulary.answers.LIMIT", 10)
    run.data.train = TensorSplit(run.data.train.x.flip(0), run.data.train.y.flip(0))
    for _ in range(2):
        assert step(run, part)["distillation"].item() == pytest.approx(first.item(), rel=1e-6) and kept.hits == 2
    assert part.batch(run, Batch(run.data.train.x[:4], None, torch.full((4,), -1))).fixed() is None


# ---- what comes out


def test_small_to_large_trains_and_exports_the_student_alone(run, tmp_path):
    from onnx import load, numpy_helper

    from bigopt.measure import export_onnx

    run.model = net(8, seed=1)
    run.build = Build(net(2, seed=3))
    part = Distillation("small", 1, hints=1.0, attention=1.0)
    run.parts = [part]
    fit = Fitter(tmp_path)
    part.prepare(run, fit)
    fit(run, 2)
    part.finish(run, fit)
    assert [history.name for history in run.history] == ["fit"]
    export_onnx(run.model, run.data.train.x[:2], tmp_path / "model.onnx")
    stored = [numpy_helper.to_array(i) for i in load(tmp_path / "model.onnx").graph.initializer]
    student = sum(t.numel() for t in run.model.state_dict().values() if t.is_floating_point())
    assert (
        sum(a.size for a in stored if a.dtype == np.float32)
        <= student
        < student + sum(p.numel() for p in part.modules(run)["regressor-0-0"].parameters())
    )


def test_regression_follows_the_teachers_predictions(tmp_path):
    run = make_run(tmp_path, mlp(dropout=0.0), data())
    y = run.data.train.x[:, :3].clone()
    run.data.train, run.data.val = TensorSplit(run.data.train.x, y), TensorSplit(run.data.val.x, run.data.val.x[:, :3])
    run.task = Task("regression", 3)
    part = prepared(run, Distillation("fake", 0, alpha=0.25, distance=1.0), mlp(seed=4))
    run.model.eval()
    terms = step(run, part)
    x = run.data.train.x[:8]
    student, teacher = run.model(x), part._models[0](x)
    assert terms["distillation"].item() == pytest.approx(0.25 * (student - teacher).square().mean().item(), rel=1e-5)
    assert terms["task"].item() == pytest.approx(0.75 * (student - y[:8]).square().mean().item(), rel=1e-5)
    assert terms["distance"].item() > 0


@pytest.mark.parametrize(
    "arguments",
    [
        {"temperature": 0.0},
        {"alpha": 1.5},
        {"teacher_epochs": -1},
        {"teacher_lr": 0.0},
        {"hints": -1.0},
        {"attention": -1.0},
        {"distance": -1.0},
        {"angle": -1.0},
        {"hint_epochs": -1},
        {"weighting": "best"},
        {"cache": "on"},
        {"teacher": []},
    ],
    ids=lambda arguments: next(iter(arguments)),
)
def test_arguments_out_of_range(arguments):
    with pytest.raises(RequestError, match=f"transfer.{next(iter(arguments))}: got"):
        Distillation(**arguments)


def test_attention_needs_maps_in_both(tmp_path):
    run = make_run(tmp_path, cnn(), data(image=True))
    run.build = Build(nn.Sequential(nn.Flatten(), nn.Linear(36, 3)))
    with pytest.raises(RequestError, match="transfer.attention: needs layers that give maps"):
        Distillation("fake", 0, attention=1.0).prepare(run, untrained)
