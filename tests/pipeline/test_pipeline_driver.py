"""The driver's schedules, recovery and bisection, with methods and a fit that only count."""

import pytest
import torch
from torch import nn
from train.train_fakes import cnn, data, make_run

from bigopt.pipeline import driver
from bigopt.pipeline.from_baseline import FromBaseline
from bigopt.vocabulary.errors import RequestError
from bigopt.vocabulary.part import Part
from bigopt.vocabulary.run import History
from bigopt.vocabulary.settings import Recover, Schedule, StepOptions


class Shrink(Part):
    """Multiplies what is left by ``1 - strength``; accuracy falls where less than a quarter is left."""

    strengths = (0.1, 0.3, 0.5, 0.7, 0.9)

    def __init__(self, ratio=0.5):
        self.ratio = ratio
        self.finished = 0

    def strength(self):
        return self.ratio

    def apply(self, run, strength, only=None):
        run.model.left = getattr(run.model, "left", 1.0) * (1 - strength)

    def finish(self, run, fit):
        self.finished += 1


class Fit:
    def __init__(self):
        self.calls = []

    def __call__(self, run, epochs=None, *, lr=None, name="fit", parts=None, share=False):
        self.calls.append((name, epochs, lr, len(parts or [])))
        history = History(name, [{"epoch": 1.0}] * (epochs or 0))
        run.history.append(history)
        return history


@pytest.fixture
def run(tmp_path):
    return make_run(tmp_path, cnn(), data(image=True))


def test_one_shot_applies_once_and_recovers_at_a_share_of_the_rate(run):
    fit, part = Fit(), Shrink(0.5)
    outcome = driver.compress(run, "shrink", part, StepOptions(recover=Recover(epochs=3, lr=0.5)), fit)
    assert run.model.left == pytest.approx(0.5)
    assert fit.calls == [("shrink", 3, 0.5 * run.settings.optimizer.lr, 1)]
    assert (outcome.epochs, outcome.strength, part.finished) == (3, 0.5, 1)


@pytest.mark.parametrize(("own", "asked", "share"), [(0.3, None, 0.3), (1.0, None, 1.0), (1.0, 0.1, 0.1)])
def test_a_step_recovers_at_its_own_rate_unless_asked(run, own, asked, share):
    fit, part = Fit(), Shrink(0.5)
    part.recovery_lr = lambda _run: own
    driver.compress(run, "shrink", part, StepOptions(recover=Recover(epochs=1, lr=asked)), fit)
    assert fit.calls == [("shrink", 1, share * run.settings.optimizer.lr, 1)]


@pytest.mark.parametrize("name", ["iterative", "gradual"])
def test_rounds_together_reach_the_strength(run, name):
    fit = Fit()
    options = StepOptions(recover=Recover(epochs=7), schedule=Schedule(name, rounds=3))
    driver.compress(run, "shrink", Shrink(0.8), options, fit)
    assert run.model.left == pytest.approx(0.2)
    assert [call[1] for call in fit.calls] == [2, 2, 3]


def test_gradual_follows_the_cubic_of_zhu_and_gupta():
    options = StepOptions(schedule=Schedule("gradual", rounds=4))
    left, reached = 1.0, []
    for share, _ in driver._rounds(0.8, 4, options):
        left *= 1 - share
        reached.append(1 - left)
    expected = [0.8 + (0 - 0.8) * (1 - t / 4) ** 3 for t in (1, 2, 3, 4)]
    assert reached == pytest.approx(expected)


def test_recovery_from_the_baseline_distils_with_temperature_squared(run):
    run.baseline = driver.frozen_copy(run.model)
    part = FromBaseline(Recover(temperature=2.0, alpha=0.25))
    from bigopt.vocabulary.batch import Batch, Output

    x, y = run.data.train.x[:8], run.data.train.y[:8]
    logits = torch.randn(8, 3, requires_grad=True)
    terms = part.loss(run, Batch(x, y, torch.arange(8)), Output(logits))
    teacher = run.baseline(x).detach()
    p = torch.softmax(teacher / 2, 1)
    kl = (p * (torch.log_softmax(teacher / 2, 1) - torch.log_softmax(logits / 2, 1))).sum(1).mean()
    assert terms["baseline_teacher"].item() == pytest.approx(0.25 * 4 * kl.item(), rel=1e-5)
    assert terms["task"].item() == pytest.approx(0.75 * nn.functional.cross_entropy(logits, y).item(), rel=1e-5)
    sum(terms.values()).backward()
    assert logits.grad.abs().sum() > 0
    assert all(p.grad is None for p in run.baseline.parameters())


@pytest.mark.parametrize(("limit", "expected"), [(0.05, 0.7), (0.0, 0.5), (1.0, 0.9)])
def test_max_drop_finds_the_largest_strength_within_the_drop(run, monkeypatch, limit, expected):
    drops = {1.0: 0.0, 0.9: 0.0, 0.7: 0.0, 0.5: 0.0, 0.3: 0.04, 0.1: 0.5}
    monkeypatch.setattr(driver, "score", lambda _run, model: 0.9 - drops[round(getattr(model, "left", 1.0), 1)])
    outcome = driver.compress(run, "shrink", Shrink(), StepOptions(max_drop=limit), Fit())
    assert outcome.strength == expected
    assert run.model.left == pytest.approx(1 - expected)


def test_an_impossible_max_drop_keeps_the_model_and_says_how_close_it_came(run, monkeypatch):
    notes = []
    run.report.note = notes.append
    before = run.model
    monkeypatch.setattr(driver, "score", lambda _run, model: 0.9 if not hasattr(model, "left") else 0.7)
    outcome = driver.compress(run, "shrink", Shrink(), StepOptions(max_drop=0.05), Fit())
    assert run.model is before and outcome.strength is None
    assert any("closest came to 0.2" in note for note in notes)


def test_a_frozen_graph_cannot_be_compressed_further(run):
    run.model = torch.fx.symbolic_trace(nn.Sequential(nn.Linear(2, 2)))
    with pytest.raises(RequestError, match="put it before"):
        driver.compress(run, "shrink", Shrink(), StepOptions(), Fit())


def test_sensitivity_tries_every_layer_and_leaves_the_model(run, monkeypatch):
    part = Shrink()
    part.layers = lambda run: ["a", "b"]
    monkeypatch.setattr(driver, "score", lambda _run, model: getattr(model, "left", 1.0))
    rows = driver.sensitivity(run, part, strengths=(0.1, 0.5))
    assert [(r["layer"], r["strength"], pytest.approx(r["drop"])) for r in rows] == [
        ("a", 0.1, 0.1),
        ("a", 0.5, 0.5),
        ("b", 0.1, 0.1),
        ("b", 0.5, 0.5),
    ]
    assert not hasattr(run.model, "left")
