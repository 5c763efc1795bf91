"""Semi-supervised methods compute what their papers say, train what they should, and never read a hidden label."""

import copy
import math
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional
from train.train_fakes import FEATURES, cnn, data, make_run, mlp, same, weights

from bigopt.train import Fitter
from bigopt.vocabulary.batch import Batch, Output, Role
from bigopt.vocabulary.errors import RequestError
from bigopt.vocabulary.objective import Monitor
from bigopt_plugins.transfer._statistics import refresh_statistics
from bigopt_plugins.transfer._unlabelled import Deck
from bigopt_plugins.transfer._views import views_of
from bigopt_plugins.transfer.semi_supervised._fixmatch import FixMatch
from bigopt_plugins.transfer.semi_supervised._flexmatch import FlexMatch
from bigopt_plugins.transfer.semi_supervised._freematch import FreeMatch
from bigopt_plugins.transfer.semi_supervised._mean_teacher import Average, MeanTeacher
from bigopt_plugins.transfer.semi_supervised._pseudo_label import PseudoLabel
from bigopt_plugins.transfer.semi_supervised._softmatch import SoftMatch
from bigopt_plugins.transfer.semi_supervised.plugin import METHODS, SemiSupervised

NAMES = list(METHODS)


class Hidden:
    """Unlabelled samples that must not be asked for their labels."""

    in_memory = True

    def __init__(self, x):
        self.x = x

    def __len__(self):
        return len(self.x)

    def take(self, index):
        return self.x[index]

    @property
    def y(self):
        raise AssertionError("a hidden label was read")


def few(image=False, rows=48):
    """12 labelled samples, the others hidden."""
    known = data(train=12 + rows, image=image)
    split = type(known.train)
    train = split(known.train.x[:12], known.train.y[:12])
    return replace(known, train=train, unlabelled=Hidden(known.train.x[12:]))


def logits_of(*probabilities):
    return torch.tensor(probabilities).log()


def cross_entropies(logits, answers):
    return functional.cross_entropy(logits, answers.argmax(1), reduction="none")


ANSWERS = logits_of([0.97, 0.02, 0.01], [0.5, 0.3, 0.2], [0.02, 0.96, 0.02], [0.1, 0.2, 0.7])
STUDENT = torch.tensor([[0.3, -0.2, 0.5], [1.0, 0.1, 0.0], [-0.4, 0.9, 0.2], [0.2, 0.2, -0.6]])
INDEX = torch.arange(4)


def test_fixmatch_s_mask_is_the_threshold_and_left_out_rows_count_in_the_mean():
    term = FixMatch(2.0, 0.95)(ANSWERS, STUDENT, INDEX)["fixmatch"]
    each = cross_entropies(STUDENT, ANSWERS)
    assert term.item() == pytest.approx(2.0 * (each[0] + each[2]).item() / 4, rel=1e-5)


def test_pseudo_label_rises_linearly_between_the_paper_s_two_times():
    method = PseudoLabel(3.0, 0.0, ramp=0.6)
    shares = []
    for progress in (0.0, 0.1, 0.35, 0.6, 1.0):
        method.progress.fill_(progress)
        shares.append(method.share().item())
    assert shares == pytest.approx([0, 0, 0.5, 1, 1], abs=1e-6)
    term = method(STUDENT, STUDENT, INDEX)["pseudo_label"]
    assert term.item() == pytest.approx(3 * cross_entropies(STUDENT, STUDENT).mean().item(), rel=1e-5)


def test_mean_teacher_s_consistency_and_ramp_up():
    method = MeanTeacher(10.0, ramp=0.5)
    method.progress.fill_(0.25)
    distance = (STUDENT.softmax(1) - ANSWERS.softmax(1)).square().sum().item() / 12
    term = method(ANSWERS, STUDENT, INDEX)["mean_teacher"]
    assert term.item() == pytest.approx(10 * math.exp(-5 * 0.25) * distance, rel=1e-5)
    method.progress.fill_(0.0)
    assert method.share().item() == pytest.approx(math.exp(-5), rel=1e-5)
    method.progress.fill_(0.7)
    assert method.share().item() == 1


def test_the_teacher_is_the_average_in_closed_form_batch_norm_s_buffers_included():
    torch.manual_seed(0)
    student = cnn().train()
    average = Average(student, 0.9)
    states = [copy.deepcopy(student.state_dict())]
    for _ in range(4):
        student(torch.rand(8, 1, 6, 6))
        with torch.no_grad():
            for parameter in student.parameters():
                parameter.add_(torch.randn_like(parameter))
        average.update(student)
        states.append(copy.deepcopy(student.state_dict()))
    decays = [min(1 - 1 / (t + 1), 0.9) for t in (1, 2, 3, 4)]
    for name in ("0.weight", "1.running_mean", "1.running_var", "5.bias"):
        expected = math.prod(decays) * states[0][name]
        for t in range(4):
            expected = expected + (1 - decays[t]) * math.prod(decays[t + 1 :]) * states[t + 1][name]
        torch.testing.assert_close(average.model.state_dict()[name], expected)
    assert int(average.model.state_dict()["1.num_batches_tracked"]) == 4
    assert not any(parameter.requires_grad for parameter in average.parameters())


def test_flexmatch_s_thresholds_follow_the_curriculum():
    method = FlexMatch(1.0, 0.9, rows=10, classes=3)
    assert method.thresholds().tolist() == [0, 0, 0]
    method.answered[:7] = torch.tensor([0, 0, 0, 0, 1, 1, 2])  # 3 of 10 were never confident: max(4, 3) divides
    beta = [1.0, 0.5, 0.25]
    assert method.thresholds().tolist() == pytest.approx([0.9 * b / (2 - b) for b in beta], rel=1e-5)
    method.answered[3:7] = 3  # now 7 of 10: the warm-up divides
    assert method.thresholds()[0].item() == pytest.approx(0.9 * (3 / 7) / (2 - 3 / 7), rel=1e-5)


def test_flexmatch_masks_by_the_answer_s_class_and_remembers_confident_ones_for_the_next_step():
    method = FlexMatch(1.0, 0.95, rows=6, classes=3)
    method.answered[:] = torch.tensor([0, 0, 0, 2, 2, 3])  # thresholds 0.95, 0, 0.475
    answers = logits_of([0.93, 0.05, 0.02], [0.2, 0.45, 0.35], [0.3, 0.3, 0.4], [0.01, 0.01, 0.98])
    term = method(answers, STUDENT, torch.tensor([5, 4, 3, 0]))["flexmatch"]
    each = cross_entropies(STUDENT, answers)
    assert term.item() == pytest.approx((each[1] + each[3]).item() / 4, rel=1e-5)
    assert method.answered.tolist() == [2, 0, 0, 2, 2, 3]


def test_freematch_s_thresholds_are_moving_averages():
    method = FreeMatch(1.0, 0.0, 0.9, classes=3)
    method(ANSWERS, STUDENT, INDEX)
    q = ANSWERS.softmax(1)
    tau = 0.9 / 3 + 0.1 * q.amax(1).mean()
    mean = 0.9 / 3 + 0.1 * q.mean(0)
    histogram = 0.9 / 3 + 0.1 * torch.tensor([0.5, 0.25, 0.25])
    torch.testing.assert_close(method.confidence, tau)
    torch.testing.assert_close(method.mean, mean)
    torch.testing.assert_close(method.histogram, histogram)
    torch.testing.assert_close(method.thresholds(), mean / mean.max() * tau)


def test_freematch_s_terms():
    method = FreeMatch(1.0, 0.5, 0.0, classes=3)  # without memory the averages are those of this batch
    terms = method(ANSWERS, STUDENT, INDEX)
    q = ANSWERS.softmax(1)
    chosen = q.amax(1) >= (q.mean(0) / q.mean(0).max() * q.amax(1).mean())[q.argmax(1)]
    assert chosen.tolist() == [True, False, True, True]
    each = cross_entropies(STUDENT, ANSWERS)
    assert terms["freematch"].item() == pytest.approx(each[chosen].sum().item() / 4, rel=1e-5)
    strong = STUDENT[chosen].softmax(1)
    shares = torch.bincount(strong.argmax(1), minlength=3) / 3
    wanted = q.mean(0) / torch.tensor([0.5, 0.25, 0.25])
    found = torch.where(shares > 0, strong.mean(0) / shares.clamp(min=1e-9), 0)
    expected = ((wanted / wanted.sum()) * (found / found.sum() + 1e-12).log()).sum()
    assert terms["fairness"].item() == pytest.approx(0.5 * expected.item(), rel=1e-4)
    nobody = FreeMatch(1.0, 0.5, 0.99, classes=3)
    nobody.confidence.fill_(5.0)
    assert nobody(ANSWERS, STUDENT, INDEX)["fairness"].item() == 0


def test_softmatch_s_truncated_gaussian():
    method = SoftMatch(1.0, 0.9, classes=3)
    method.mu.fill_(0.8)
    method.variance.fill_(0.04)
    assert method.weights(torch.tensor([0.9, 0.8, 0.6])).tolist() == pytest.approx([1, 1, math.exp(-0.5)], rel=1e-5)


def test_softmatch_s_averages_and_uniform_alignment():
    method = SoftMatch(1.0, 0.9, classes=3)
    term = method(ANSWERS, STUDENT, INDEX)["softmatch"]
    q = ANSWERS.softmax(1)
    mean = 0.9 / 3 + 0.1 * q.mean(0)
    aligned = q / 3 / mean
    confidence = (aligned / aligned.sum(1, keepdim=True)).amax(1)
    mu, variance = 0.9 / 3 + 0.1 * confidence.mean(), 0.9 + 0.1 * confidence.var(unbiased=True)
    torch.testing.assert_close(method.mu, mu)
    torch.testing.assert_close(method.variance, variance)
    short = (mu - confidence).clamp(min=0)
    gauss = torch.exp(-short.square() / (2 * variance))
    assert term.item() == pytest.approx((gauss * cross_entropies(STUDENT, ANSWERS)).mean().item(), rel=1e-5)


def started(method, tmp_path, image=False, **arguments):
    run = make_run(tmp_path, cnn() if image else mlp(), few(image), batch_size=12)
    chosen = {"threshold": 0.0, "ramp": 0.0, "ratio": 2, "selection": "oracle"} | arguments
    part = SemiSupervised(method, **chosen)
    part.prepare(run, None)
    return run, part, part.modules(run)


@pytest.mark.parametrize("method", NAMES)
def test_each_term_trains_the_model_and_nothing_else(method, tmp_path):
    run, part, held = started(method, tmp_path, fairness=0.1)
    run.model.train()
    x, y = run.data.train.x[:12], run.data.train.y[:12]
    batch = part.batch(run, Batch(x, y, torch.arange(12)))
    terms = part.loss(run, batch, Output(run.model(batch.x)))
    assert set(terms) == {method} | ({"fairness"} if method == "freematch" else set())
    for name, term in terms.items():
        gradients = torch.autograd.grad(term, list(run.model.parameters()), retain_graph=True)
        assert all(gradient.abs().sum() > 0 for gradient in (gradients[0], gradients[-1])), name
    sum(terms.values()).backward()
    assert all(p.grad is None for module in held.values() for p in module.parameters())


def test_images_train_the_same_way(tmp_path):
    run, part, held = started("fixmatch", tmp_path, image=True)
    x, y = run.data.train.x[:12], run.data.train.y[:12]
    run.model.train()
    batch = part.batch(run, Batch(x, y, torch.arange(12)))
    assert batch.x.shape == batch.views["weak"].shape == (36, 1, 6, 6)
    output = run.model(batch.x)
    term = part.loss(run, batch, Output(output))["fixmatch"]
    answers = run.model(batch.views["weak"][12:])
    expected = functional.cross_entropy(output[12:], answers.argmax(1), reduction="sum").item() / 24
    assert term.item() == pytest.approx(expected, rel=1e-4)  # a threshold of 0 takes every row
    term.backward()
    assert run.model[0].weight.grad.abs().sum() > 0


@pytest.mark.parametrize("method", ["fixmatch", "mean_teacher"])
def test_unlabelled_rows_follow_the_labelled_ones_with_fillers_for_labels(method, tmp_path):
    run, part, _ = started(method, tmp_path)
    x, y = run.data.train.x[:12], run.data.train.y[:12]
    batch = part.batch(run, Batch(x, y, torch.arange(12)))
    assert batch.role.tolist() == [int(Role.LABELLED)] * 12 + [int(Role.UNLABELLED)] * 24
    assert torch.equal(batch.y[:12], y) and bool((batch.y[12:] == -1).all())
    assert batch.views["weak"].shape == batch.x.shape
    raw = run.data.unlabelled.x[batch.index[12:]]
    near, far = (batch.views["weak"][12:] - raw).abs().mean(), (batch.x[12:] - raw).abs().mean()
    assert (far > 3 * near) if method == "fixmatch" else (0.5 < (far / near).item() < 2)


def test_labelled_rows_may_take_the_strong_view(tmp_path):
    moved = {}
    for view in ("weak", "strong"):
        run, part, _ = started("fixmatch", tmp_path, labelled=view)
        x, y = run.data.train.x[:12], run.data.train.y[:12]
        moved[view] = (part.batch(run, Batch(x, y, torch.arange(12))).x[:12] - x).abs().mean().item()
    assert moved["strong"] > 3 * moved["weak"] > 0


@pytest.mark.parametrize("method", NAMES)
def test_a_seeded_fit_repeats_and_reads_no_hidden_label(method, tmp_path):
    states = []
    for name in ("one", "two"):
        run, part, _ = started(method, tmp_path / name, selection="last", threshold=0.4)
        run.parts = [part]
        history = Fitter(tmp_path / name)(run, 2)
        part.finish(run, None)
        assert history.best_epoch == 2 and run.monitor == Monitor("val/accuracy", "max")
        assert math.isfinite(history.epochs[-1][f"train/{method}"])
        states.append(weights(run.model))
    assert same(*states)


def test_mean_teacher_ships_its_teacher(tmp_path):
    run, part, held = started("mean_teacher", tmp_path, selection="last")
    run.parts = [part]
    Fitter(tmp_path)(run, 2)
    teacher = weights(part._state["average"].model)
    assert int(part._state["average"].updates) == 2 * 2  # 48 rows without labels in batches of 24, twice
    assert not same(weights(run.model), teacher)
    part.finish(run, None)
    assert same(weights(run.model), teacher)


def test_batch_norm_gets_the_statistics_of_samples_as_they_are():
    model, x = mlp(dropout=0.5), torch.randn(40, FEATURES) * 3 + 1
    frozen = copy.deepcopy(model).requires_grad_(False)
    model.train()
    assert refresh_statistics(model, Hidden(x), batch_size=20) == 1
    inside = model[0](x)
    torch.testing.assert_close(model[1].running_mean, inside.mean(0))
    halves = torch.stack([inside[:20].var(0), inside[20:].var(0)]).mean(0)
    torch.testing.assert_close(model[1].running_var, halves)
    assert model[1].momentum == 0.1 and model.training and model[1].training
    before = weights(frozen)
    assert refresh_statistics(frozen, Hidden(x)) == 0 and same(before, weights(frozen))


def test_progress_reaches_the_method_before_each_step(tmp_path):
    run, part, _ = started("pseudo_label", tmp_path)
    run.parts = [part]
    seen = []
    original = PseudoLabel.forward
    PseudoLabel.forward = lambda self, *a: seen.append(round(self.progress.item(), 4)) or original(self, *a)
    try:
        Fitter(tmp_path)(run, 2)
    finally:
        PseudoLabel.forward = original
    assert seen == [0.0, 0.25, 0.5, 0.75]


def test_an_epoch_takes_in_each_unlabelled_sample_once(tmp_path):
    run, part, held = started("fixmatch", tmp_path)
    assert len(run.data.train) == 24  # 48 hidden samples at two for each of 12 labelled rows
    deck = held["deck"]
    passes = torch.cat([deck.draw(24), deck.draw(24)])
    assert passes.sort().values.tolist() == list(range(48))
    assert sorted(torch.cat([Deck(5).draw(3), torch.tensor([7])]).tolist())[-1] == 7
    assert sorted(Deck(3).draw(7).tolist())[:6].count(0) >= 2


def test_a_budget_validates_on_its_own_labels(tmp_path):
    run, part, _ = started("fixmatch", tmp_path, selection="budget")
    values = {}
    run = make_run(tmp_path, mlp(), few(), batch_size=12)
    run.report.value = lambda name, value: values.update({name: value})
    before = run.data
    SemiSupervised(selection="budget").prepare(run, None)
    assert values["labels"]["oracle"] is False and values["labels"]["budget"] == 12
    assert len(run.data.val) == values["labels"]["validation"]
    rows = {tuple(row) for row in before.train.x.tolist()}
    held = {tuple(row) for row in run.data.val.x.tolist()}
    used = {tuple(row) for row in run.data.train.x.tolist()}
    assert held | used == rows and not held & used
    assert set(run.data.val.y.tolist()) == set(before.train.y.tolist())


def test_the_report_says_what_is_an_oracle(tmp_path):
    notes = {}
    for selection in ("last", "oracle", "budget"):
        run = make_run(tmp_path, mlp(), few(), batch_size=12)
        run.report.note = lambda text, key=selection: notes.update({key: text})
        SemiSupervised(selection=selection).prepare(run, None)
    assert "epochs are chosen by 32 further labels: val/* are oracle figures" in notes["oracle"]
    assert "the last epoch is kept" in notes["last"] and "oracle" in notes["last"]
    assert "oracle" not in notes["budget"]


def test_views_of_features_are_noise_and_lost_features():
    dataset = replace(data(), mean=torch.full((FEATURES,), 7.0), std=torch.full((FEATURES,), 2.0))
    views = views_of(dataset, 0.5)
    torch.manual_seed(0)
    x = torch.zeros(4000, FEATURES)
    assert views.weak(x).std().item() == pytest.approx(0.1 * 0.5 * 2, rel=0.05)
    strong = views.strong(x)
    lost = strong == 7.0
    assert lost.float().mean().item() == pytest.approx(0.2, rel=0.1)
    assert strong[~lost].std().item() == pytest.approx(0.6 * 0.5 * 2, rel=0.05)


def test_views_of_digits_are_never_mirrored_and_stay_images():
    dataset = data(image=True)
    torch.manual_seed(0)
    x = torch.zeros(400, 1, 6, 6)
    x[:, :, :, :2] = 1  # the left third
    left = {}
    for flips in (False, True):
        views = views_of(replace(dataset, schema=replace(dataset.schema, flips=flips)), 0.3)
        weak, strong = views.weak(x), views.strong(x)
        assert weak.shape == strong.shape == x.shape and strong.min() >= 0 and strong.max() <= 1
        moments = [(v[..., :3].sum((1, 2, 3)) > v[..., 3:].sum((1, 2, 3))).float().mean() for v in (weak, strong)]
        left[flips] = [m.item() for m in moments]
    assert left[False][0] == 1 and left[False][1] > 0.9
    assert all(0.35 < share < 0.65 for share in left[True])


def test_without_unlabelled_samples_one_line_says_what_to_set(tmp_path):
    run = make_run(tmp_path, mlp(), data())
    with pytest.raises(RequestError, match="set dataset.unlabelled=true"):
        SemiSupervised().prepare(run, None)


def test_samples_that_lost_their_label_are_fetched_where_they_were_dropped(tmp_path):
    asked = []

    class Build:
        def dataset(self, spec):
            asked.append(spec)
            return few()

    run = make_run(tmp_path, mlp(), replace(few(), unlabelled=None))
    run.build = Build()
    run.settings.extra["dataset"] = {"name": "fake", "labels_per_class": 4}
    SemiSupervised().prepare(run, None)
    assert asked == [{"name": "fake", "labels_per_class": 4, "unlabelled": True}]
    assert len(run.data.unlabelled) == 48


@pytest.mark.parametrize(
    "arguments",
    [
        {"method": "other"},
        {"ratio": 0},
        {"weight": -1.0},
        {"threshold": 1.5},
        {"momentum": 1.0},
        {"teacher_decay": -0.1},
        {"ramp": 2.0},
        {"magnitude": -1.0},
        {"labelled": "none"},
        {"selection": "best"},
    ],
    ids=lambda arguments: next(iter(arguments)),
)
def test_arguments_out_of_range(arguments):
    with pytest.raises(RequestError, match=f"transfer.{next(iter(arguments))}"):
        SemiSupervised(**arguments)


def test_dropout_and_batch_norm_of_the_teacher_stay_in_evaluation_mode(tmp_path):
    run, part, held = started("mean_teacher", tmp_path)
    run.parts = [part]
    modes = []
    hook = nn.Module.register_forward_hook(
        held["average"].model, lambda module, *_: modes.append([m.training for m in module.modules()])
    )
    part.modules = lambda _run: held
    part._state = held
    Fitter(tmp_path)(run, 1)
    hook.remove()
    assert modes and not any(any(each) for each in modes)
