"""Co-training: both models learn, agreement is what the papers say, and the report tells what ships."""

import copy
import json
import math
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.nn import functional
from train.train_fakes import CLASSES, FEATURES, data, make_run, mlp, same, tensors, weights

from bigopt.data import hide_labels
from bigopt.pipeline.notes import Collected
from bigopt.pipeline.session import Session
from bigopt.train import Fitter
from bigopt.vocabulary.batch import Batch, Output
from bigopt.vocabulary.data import TensorSplit
from bigopt.vocabulary.errors import RequestError
from bigopt.vocabulary.network import Network
from bigopt.vocabulary.task import Task
from bigopt_plugins.transfer.co_training._agreement import feature_agreement, output_agreement, taught
from bigopt_plugins.transfer.co_training._choice import compared, ensemble, winner
from bigopt_plugins.transfer.co_training.plugin import CoTraining

FIRST = torch.tensor([[0.3, -0.2, 0.5], [3.0, 0.1, 0.0], [-0.4, 0.9, 0.2]])
SECOND = torch.tensor([[2.9, -1.0, 0.5], [0.2, 0.1, 0.4], [-3.0, 4.0, 0.2]])


def wide(seed=0):
    torch.manual_seed(seed)
    return Network(nn.Sequential(nn.Linear(FEATURES, 12), nn.Tanh(), nn.Linear(12, CLASSES)))


class Build:
    """Hands out nets by name; ``mlp`` is the run's own."""

    def __init__(self, seed=0):
        self.seed = seed
        self.other = None

    def model(self, spec, _data, **_):
        name = spec if isinstance(spec, str) else spec["name"]
        return Network(mlp(self.seed)) if name == "mlp" else wide(self.seed)

    def dataset(self, _spec):
        return self.other


def few():
    known = data(train=60)
    train = TensorSplit(known.train.x[:12], known.train.y[:12])
    return replace(known, train=train, unlabelled=hide_labels(TensorSplit(known.train.x[12:], known.train.y[12:])))


def made(tmp_path, dataset=None, **trainer):
    run = make_run(tmp_path, Network(mlp()), dataset or few(), batch_size=12, **trainer)
    run.build, run.report = Build(), Collected()
    run.settings.extra["model"] = {"name": "mlp"}
    return run


def kl(p, q):
    return (p * (p / q).log()).sum(1).mean()


def test_output_agreement_is_both_divergences_each_to_a_given_answer():
    first, second = FIRST.clone().requires_grad_(), SECOND.clone().requires_grad_()
    term = output_agreement(Task("classification", 3), first, second)
    p, q = FIRST.softmax(1), SECOND.softmax(1)
    assert term.item() == pytest.approx((kl(q, p) + kl(p, q)).item(), rel=1e-5)
    term.backward()
    torch.testing.assert_close(first.grad, (p - q) / 3)  # the gradient of KL(q ‖ p) alone
    torch.testing.assert_close(second.grad, (q - p) / 3)


def test_feature_agreement_is_one_minus_the_mean_cosine():
    bridge = nn.Linear(3, 3, bias=False)
    nn.init.eye_(bridge.weight)
    cosines = [functional.cosine_similarity(FIRST[i], SECOND[i], dim=0).item() for i in range(3)]
    assert feature_agreement(FIRST, SECOND, bridge).item() == pytest.approx(1 - sum(cosines) / 3, rel=1e-5)


def test_only_confident_answers_teach_and_no_gradient_goes_back_to_them():
    learner, teacher = FIRST.clone().requires_grad_(), SECOND.clone().requires_grad_()
    term = taught(learner, teacher, 0.85)
    each = functional.cross_entropy(FIRST, SECOND.argmax(1), reduction="none")
    assert term.item() == pytest.approx((each[0] + each[2]).item() / 3, rel=1e-5)
    term.backward()
    assert teacher.grad is None and learner.grad[1].abs().sum() == 0 and learner.grad[0].abs().sum() > 0


def test_the_ensemble_is_the_mean_of_the_two():
    mean = (FIRST.softmax(1) + SECOND.softmax(1)) / 2
    torch.testing.assert_close(ensemble([FIRST, SECOND], True).softmax(1), mean)
    torch.testing.assert_close(ensemble([FIRST, SECOND], False), (FIRST + SECOND) / 2)


def test_the_table_compares_both_and_their_ensemble_with_what_they_cost(tmp_path):
    run = made(tmp_path)
    other = wide(3)
    rows = compared(run, {"first": run.model, "second": other})
    x, y = run.data.val.x, run.data.val.y
    outputs = [model.eval()(x).detach() for model in (run.model, other)]
    mean = (outputs[0].softmax(1) + outputs[1].softmax(1)) / 2
    assert [row["model"] for row in rows] == ["first", "second", "ensemble"]
    assert rows[2]["val/accuracy"] == pytest.approx((mean.argmax(1) == y).double().mean().item())
    assert rows[2]["val/loss"] == pytest.approx(functional.nll_loss(mean.log(), y).item(), rel=1e-4)
    assert rows[2]["macs"] == rows[0]["macs"] + rows[1]["macs"] == 8 * FEATURES + 8 * 3 + 12 * FEATURES + 12 * 3


@pytest.mark.parametrize(("scores", "ship", "wins"), [
    ((0.8, 0.9), "best", "second"), ((0.9, 0.9), "best", "first"), ((0.8, 0.9), "first", "first"),
], ids=["better", "equal", "asked"])  # fmt: skip
def test_the_better_one_ships(tmp_path, scores, ship, wins):
    rows = [{"model": m, "val/accuracy": s, "val/loss": 0.0} for m, s in zip(("first", "second"), scores, strict=True)]
    assert winner(made(tmp_path), rows, ship) == wins


def test_each_term_reaches_whom_it_should(tmp_path):
    run = made(tmp_path)
    part = CoTraining(partner="wide", ratio=2, threshold=0.0)
    part.prepare(run, None)
    held = part.modules(run)
    first, second, bridge = run.model.train(), held["second"].train(), held["bridge"]
    batch = part.batch(run, Batch(run.data.train.x[:12], run.data.train.y[:12], torch.arange(12)))
    assert len(batch.x) == 36 and not torch.equal(batch.x, batch.views["second"])
    terms = part.loss(run, batch, run.forward(batch.x, part.taps(run)))
    heads = {"first": first.net[4].weight, "second": second.net[2].weight, "bridge": bridge.weight}
    bodies = {"first": first.net[0].weight, "second": second.net[0].weight}
    expected = {
        "second_task": {"second"},
        "output_agreement": {"first", "second"},
        "feature_agreement": {"bridge"},  # features: the bodies below the heads
        "pseudo_labels": {"first", "second"},
    }
    assert set(terms) == set(expected)
    for name, term in terms.items():
        wanted = [*heads.values(), *bodies.values()]
        found = torch.autograd.grad(term, wanted, retain_graph=True, allow_unused=True)
        reached = [g is not None and bool(g.abs().sum() > 0) for g in found]
        assert {key for key, hit in zip(heads, reached[:3], strict=True) if hit} == expected[name], name
        assert reached[3:] == [name != "second_task", True], name


def test_both_models_learn_and_a_seeded_run_repeats(tmp_path):
    states = []
    for name in ("one", "two"):
        run = made(tmp_path / name)
        part = CoTraining(threshold=0.4, selection="last")
        part.prepare(run, None)
        run.parts = [part]
        before = weights(run.model), weights(part._second)
        assert not torch.equal(before[0]["net.0.weight"], before[1]["net.0.weight"])
        history = Fitter(tmp_path / name)(run, 2)
        second = part._second
        assert history.best_epoch == 2 and math.isfinite(history.epochs[-1]["train/pseudo_labels"])
        assert not same(before[0], weights(run.model)) and not same(before[1], weights(second))
        states.append(weights(run.model) | {f"second.{k}": v for k, v in weights(second).items()})
    assert same(*states)


def test_a_better_second_model_of_the_same_architecture_hands_its_weights_over(tmp_path):
    run = made(tmp_path)
    part = CoTraining(ship="second")
    part.prepare(run, None)
    second = part._second
    part.finish(run, None)
    assert same(weights(run.model), weights(second)) and run.report.values["ships"] == "second"
    rows = run.report.tables["co_training"]
    assert [row["ships"] for row in rows] == [False, True, False]
    assert f"{rows[1]['macs']:,} MACs" in run.report.notes[-1] and f"{rows[2]['macs']:,} MACs" in run.report.notes[-1]
    assert part.modules(run) == {} and part.taps(run) == [] and part.loss(run, None, None) == {}


def test_a_second_model_of_another_architecture_becomes_the_run_s_own(tmp_path):
    run = made(tmp_path)
    part = CoTraining(partner="wide", ship="second")
    part.prepare(run, None)
    second = part._second
    part.finish(run, None)
    assert run.model is second and run.settings.extra["model"] == {"name": "wide"}
    session = SimpleNamespace(run=run, checked=SimpleNamespace(model={"name": "mlp"}), folder=tmp_path)
    Session._keep_structure(session)
    assert json.loads((tmp_path / "structure.json").read_text())["spec"] == {"name": "wide"}


def test_labels_alone_without_unlabelled_rows(tmp_path):
    run = made(tmp_path, data())
    part = CoTraining(views=False)
    part.prepare(run, None)
    assert set(part.modules(run)) == {"second", "bridge"}
    batch = Batch(run.data.train.x[:8], run.data.train.y[:8], torch.arange(8))
    joined = part.batch(run, batch)
    assert torch.equal(joined.views["second"], batch.x) and len(joined.x) == 8
    terms = part.loss(run, joined, run.forward(joined.x, part.taps(run)))
    assert set(terms) == {"second_task", "output_agreement", "feature_agreement"}


def test_the_second_task_is_the_second_model_s_loss_on_its_own_view(tmp_path):
    run = made(tmp_path)
    part = CoTraining(partner="wide", outputs=0.0, features=0.0, pseudo=0.0)
    part.prepare(run, None)
    held = part.modules(run)
    y = run.data.train.y[:4]
    batch = Batch(run.data.train.x[:4], y, torch.arange(4), views={"second": torch.ones(4, FEATURES)})
    terms = part.loss(run, batch, Output(torch.zeros(4, CLASSES)))
    expected = functional.cross_entropy(held["second"](torch.ones(4, FEATURES)), y).item()
    assert {name: term.item() for name, term in terms.items()} == {"second_task": pytest.approx(expected, rel=1e-6)}


def test_co_trained_on_a_source_then_taken_over_but_for_a_head_of_other_classes(tmp_path):
    run = made(tmp_path, data())
    other = replace(data(train=40), name="other", train=tensors(40, seed=9), fingerprint="e" * 64)
    other = replace(other, schema=replace(other.schema, class_names=("x", "y", "z")))
    run.build.other = other
    part = CoTraining(source={"dataset": "digits"}, source_epochs=1, ship="second", independent=True)
    fresh = copy.deepcopy(run.model)
    part.prepare(run, Fitter(tmp_path))
    assert [history.name for history in run.history] == ["independent", "co_training"]
    assert part.modules(run) == {}  # fine-tuning is the first stage's own training
    assert torch.equal(run.model.net[4].weight, fresh.net[4].weight)
    assert not torch.equal(run.model.net[0].weight, fresh.net[0].weight)
    names = [row["model"] for row in run.report.tables["co_training"]]
    assert names == ["first", "second", "ensemble", *(f"independent {n}" for n in ("first", "second", "ensemble"))]


@pytest.mark.parametrize(
    "arguments",
    [
        {"outputs": -1.0},
        {"features": -1.0},
        {"pseudo": -0.5},
        {"threshold": 2.0},
        {"magnitude": -1.0},
        {"ratio": 0},
        {"labelled": "none"},
        {"source_epochs": 0},
        {"ship": "third"},
        {"selection": "oracle"},
    ],
    ids=lambda arguments: next(iter(arguments)),
)
def test_arguments_out_of_range(arguments):
    with pytest.raises(RequestError, match=f"transfer.{next(iter(arguments))}"):
        CoTraining(**arguments)
