"""The strategy as a Part: what it trains on, what it never reads, where gradients go, what judges it."""

import copy
from dataclasses import replace

import pytest
import torch
from torch import nn
from train.train_fakes import data, make_run, same, tensors, weights

from bigopt.pipeline.driver import frozen_copy, score
from bigopt.train import Fitter
from bigopt.vocabulary.batch import Batch, Output, Role
from bigopt.vocabulary.data import TensorSplit
from bigopt.vocabulary.errors import RequestError
from bigopt.vocabulary.network import Network
from bigopt_plugins.transfer.domain_adaptation import _domains
from bigopt_plugins.transfer.domain_adaptation.plugin import DomainAdaptation

METHODS = ("source_only", "dann", "cdan", "dan", "deep_coral", "adabn", "mcc", "shot")
NAMES = ("a", "b", "c")
HEAD = {"model.net.5.weight", "model.net.5.bias"}


def net(seed=0):
    torch.manual_seed(seed)
    return Network(
        nn.Sequential(
            nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, 3)
        )
    )


class Sealed(TensorSplit):
    """Inputs whose labels nobody may look at."""

    def __init__(self, x):
        self.x = x

    @property
    def y(self):
        raise AssertionError("a label of the target was read")

    def __len__(self):
        return len(self.x)


def named(made):
    return replace(made, schema=replace(made.schema, class_names=NAMES), mean=torch.zeros(1), std=torch.ones(1))


def sealed(rows=48):
    target = named(data(image=True))
    x = tensors(rows, 7, image=True).x
    return replace(
        target, train=Sealed(x * 0.7 + 0.2), val=Sealed(x[:24] * 0.7), test=Sealed(x), mean=None, fingerprint="t"
    )


class Build:
    """Hands out the source, whatever it is called."""

    def __init__(self, source):
        self.source = source

    def dataset(self, spec):
        return copy.deepcopy(self.source)

    def model(self, spec, _data):
        return net()


def started(tmp_path, target=None, source=None, **arguments):
    run = make_run(tmp_path, net(), target if target is not None else sealed(), max_epochs=2)
    run.settings.extra.update(model={"name": "mlp"}, dataset={"name": "target"})
    run.build = Build(source if source is not None else named(data(image=True)))
    part = DomainAdaptation(source="other", **arguments)
    run.parts = [part]
    fit = Fitter(tmp_path)
    part.prepare(run, fit)
    return run, part, fit


def one_step(run, part):
    """Terms of one batch, with the graph behind them."""
    modules = part.modules(run)
    run.model.train()
    index = torch.arange(16)
    batch = part.batch(run, Batch(run.data.train.take(index), run.data.train.y[index], index))
    output = run.forward(batch.x, part.taps(run))
    return batch, output, part.loss(run, batch, output), modules


MONITORED = {
    "source": "val/accuracy",
    "information": "target/information",
    "snd": "target/snd",
    "dev": "target/dev",
}


@pytest.mark.parametrize(
    ("method", "selection"),
    [*((method, "dev") for method in METHODS), ("mcc", "source"), ("mcc", "information"), ("mcc", "snd")],
)
def test_no_label_of_the_target_is_read(tmp_path, method, selection):
    run, part, fit = started(tmp_path, method=method, selection=selection)
    history = fit(run, 1, name="baseline")
    part.finish(run, fit)
    run.baseline = frozen_copy(run.model)
    assert MONITORED[selection] in history.epochs[0]
    assert run.monitor.metric == "target/agreement"
    assert score(run, run.model) == 1.0
    assert not any(name.startswith("oracle") for name in history.epochs[0])


@pytest.mark.parametrize(
    ("method", "term", "head", "discriminator"),
    [
        ("dann", "domain", False, True),
        ("cdan", "domain", False, True),
        ("dan", "dan", True, False),
        ("deep_coral", "deep_coral", False, False),
        ("mcc", "mcc", True, False),
        ("shot", "information", False, False),
        ("shot", "pseudo", False, False),
    ],
    ids=["dann", "cdan", "dan", "deep_coral", "mcc", "shot-information", "shot-pseudo"],
)
def test_each_term_trains_what_it_should_and_nothing_else(tmp_path, method, term, head, discriminator):
    run, part, _ = started(tmp_path, method=method, source_epochs=0)
    part._put(torch.randint(3, (48,), generator=torch.Generator().manual_seed(0)))
    part._tell(0.5)
    _, _, terms, modules = one_step(run, part)
    named_parameters = {f"model.{name}": p for name, p in run.model.named_parameters()}
    named_parameters |= {f"{n}.{name}": p for n, m in modules.items() for name, p in m.named_parameters()}
    terms[term].backward()
    reached = {n for n, p in named_parameters.items() if p.grad is not None and p.grad.abs().sum() > 1e-9}
    extractor = {n for n in named_parameters if n.startswith("model.") and n not in HEAD} - {"model.net.0.bias"}
    expected = extractor | (HEAD if head else set())
    expected |= {n for n in named_parameters if n.startswith("discriminator")} if discriminator else set()
    assert reached - {"model.net.0.bias"} == expected  # a bias before batch norm gets rounding only
    assert set(terms) == ({"information", "pseudo"} if method == "shot" else {term})


def test_a_batch_is_source_then_target_without_labels(tmp_path):
    run, part, _ = started(tmp_path, method="mcc")
    batch, _, _, _ = one_step(run, part)
    assert len(batch.x) == 32 and batch.rows(Role.TARGET).tolist() == [False] * 16 + [True] * 16
    assert torch.equal(batch.y[:16], run.data.train.y[:16]) and torch.all(batch.y[16:] == -1)
    assert torch.all(batch.index[16:] == -1)
    pool = {tuple(row.flatten().tolist()) for row in run.data.unlabelled.x}
    assert all(tuple(row.flatten().tolist()) in pool for row in batch.x[16:])


@pytest.mark.parametrize("method", ["source_only", "adabn"])
def test_what_has_no_term_trains_on_the_source_alone(tmp_path, method):
    run, part, _ = started(tmp_path, method=method)
    batch, _, terms, _ = one_step(run, part)
    assert len(batch.x) == 16 and not batch.rows(Role.TARGET).any() and terms == {}


def test_few_labels_of_the_target_are_trained_on_where_the_dataset_leaves_few(tmp_path):
    target = replace(named(data(train=6, image=True)), unlabelled=Sealed(tensors(30, 9, image=True).x))
    run = make_run(tmp_path, net(), target, max_epochs=1)
    run.settings.extra.update(model={"name": "mlp"}, dataset={"name": "target", "labels_per_class": 2})
    run.build = Build(named(data(image=True)))
    part = DomainAdaptation(source="other", method="mcc")
    part.prepare(run, Fitter(tmp_path))
    batch, _, _, _ = one_step(run, part)
    labelled = batch.rows(Role.LABELLED)
    assert int(labelled.sum()) == 16 + 6 and int(batch.rows(Role.TARGET).sum()) == 16
    few = labelled & (batch.index < 0)
    assert sorted(batch.y[few].tolist()) == sorted(target.train.y.tolist())


def test_shot_trains_on_the_target_alone_and_leaves_the_head(tmp_path):
    run, part, fit = started(tmp_path, method="shot")
    assert [history.name for history in run.history] == ["source"]
    before = weights(run.model)
    batch, _, _, _ = one_step(run, part)
    assert len(batch.x) == 16 and torch.all(batch.rows(Role.TARGET))
    fit(run, 1)
    after = weights(run.model)
    assert torch.equal(before["net.5.weight"], after["net.5.weight"])
    assert not torch.equal(before["net.0.weight"], after["net.0.weight"])


def test_adabn_ends_every_epoch_with_the_targets_statistics(tmp_path):
    run, part, fit = started(tmp_path, method="adabn")
    fit(run, 2)
    with torch.no_grad():
        inputs = run.model.net[0](run.model.normalize(run.data.unlabelled.x))
    torch.testing.assert_close(run.model.net[1].running_mean, inputs.mean((0, 2, 3)), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(run.model.net[1].running_var, inputs.var((0, 2, 3)), rtol=1e-4, atol=1e-5)


def test_a_seeded_run_repeats(tmp_path):
    results = []
    for name in ("one", "two"):
        run, _, fit = started(tmp_path / name, method="cdan", sampling="balanced", label_shift="bbse")
        fit(run, 2)
        results.append(weights(run.model))
    assert same(*results)


def test_agreement_is_the_share_of_equal_answers_and_judges_after_the_first_stage(tmp_path):
    run, part, fit = started(tmp_path, method="source_only", selection="source")
    part.finish(run, fit)
    run.baseline = frozen_copy(run.model)
    other = net(seed=5).eval()
    x = part._target.held_out.x
    expected = (other(x).argmax(1) == run.baseline.eval()(x).argmax(1)).double().mean().item()
    assert score(run, other) == pytest.approx(expected)


def test_the_oracle_is_shown_only_when_asked_and_is_called_so(tmp_path):
    target = named(data(image=True))
    run, part, fit = started(tmp_path, target=target, method="source_only", oracle=True, selection="source")
    values = fit(run, 1).epochs[0]
    with torch.no_grad():
        expected = (run.model.eval()(target.val.x).argmax(1) == target.val.y).double().mean().item()
    assert values["oracle/accuracy"] == pytest.approx(expected)


def test_classes_are_weighed_by_their_frequency_in_the_target(tmp_path):
    run, part, _ = started(tmp_path, method="source_only", label_shift="bbse", source_epochs=1)
    part._class_weights = torch.tensor([0.5, 2.0, 1.0])
    batch = Batch(torch.zeros(3, 1, 6, 6), torch.tensor([0, 1, 2]), torch.tensor([0, 1, -1]), torch.zeros(3).long())
    logits = torch.tensor([[0.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 2.0]])
    part._class_weights[2] = 9.0  # the third row is the target's own: it counts once
    loss = torch.nn.functional.cross_entropy(logits, batch.y, reduction="none")
    expected = (0.5 * loss[0] + 2 * loss[1] + loss[2]) / 3
    assert part.loss(run, batch, Output(logits))["task"].item() == pytest.approx(expected.item())


def test_balanced_sampling_draws_every_class_as_often():
    y = torch.cat([torch.zeros(90), torch.ones(9), torch.full((1,), 2.0)]).long()
    torch.manual_seed(0)
    counts = y[_domains.Balance(y).draw(3000)].bincount().double()
    assert torch.all((counts / 3000 - 1 / 3).abs() < 0.03)


def test_a_long_tail_falls_exponentially():
    split = TensorSplit(torch.rand(192, 1, 6, 6), torch.arange(3).repeat(64))
    made = replace(named(data(image=True)), train=split, val=split)
    tailed = _domains.long_tailed(made, 16.0, seed=3)
    assert tailed.train.y.bincount().tolist() == [64, 16, 4]  # 64 · 16^(-k / 2)
    assert tailed.val.y.bincount().tolist() == [64, 16, 4]
    assert torch.equal(tailed.train.x, _domains.long_tailed(made, 16.0, seed=3).train.x)


def test_labels_follow_the_names_where_the_order_differs(tmp_path):
    source = named(data(image=True))
    source = replace(source, schema=replace(source.schema, class_names=("c", "a", "b")))
    run, _, _ = started(tmp_path, source=source, method="source_only")
    theirs = [source.schema.class_names[label] for label in source.train.y.tolist()]
    assert [NAMES[label] for label in run.data.train.y.tolist()] == theirs


def test_other_classes_are_one_line_with_both_sides(tmp_path):
    source = named(data(image=True))
    source = replace(source, schema=replace(source.schema, class_names=("a", "b", "d")))
    with pytest.raises(RequestError, match=r"source \[a, b, d\]; target \[a, b, c\]") as error:
        started(tmp_path, source=source)
    assert len(error.value.problems) == 1


def test_other_inputs_are_one_line(tmp_path):
    source = named(data(image=True))
    source = replace(source, schema=replace(source.schema, shape=(3, 6, 6)))
    with pytest.raises(RequestError, match=r"fake gives image \(3, 6, 6\), fake image \(1, 6, 6\)"):
        started(tmp_path, source=source)


@pytest.mark.parametrize(
    "arguments",
    [{"method": "nope"}, {"source_epochs": -1}, {"weight": -0.5}, {"selection": "best"}],
    ids=["method", "source_epochs", "weight", "selection"],
)
def test_arguments_out_of_range(arguments):
    with pytest.raises(RequestError, match=next(iter(arguments))):
        DomainAdaptation(**arguments)


def test_a_long_tail_below_one_is_refused():
    with pytest.raises(RequestError, match="imbalance: got 0.5"):
        _domains.split_spec({"dataset": "x", "imbalance": 0.5})
