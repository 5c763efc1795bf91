"""What `auto` finds: the range test against its closed form on a quadratic, the batch size by rule, and once."""

import json
import math
from dataclasses import replace

import pytest
import torch
from torch import nn
from train_fakes import data, linear, make_run, mlp, same, weights

from bigopt.config import check
from bigopt.report.rates import draw_rates
from bigopt.train import Fitter, finder
from bigopt.train.job import Job
from bigopt.vocabulary.data import Data, Schema, TensorSplit
from bigopt.vocabulary.errors import RequestError
from bigopt.vocabulary.part import Part
from bigopt.vocabulary.settings import Optimizer

AUTO = Optimizer("sgd", lr="auto", momentum=0.0, nesterov=False, weight_decay=0.0)


class Quadratic(Part):
    """The loss w², whatever the data say."""

    def loss(self, run, batch, output):
        return {"task": run.model[0].weight.square().sum()}


def quadratic(folder, **trainer):
    net = nn.Sequential(nn.Linear(1, 3, bias=False))
    with torch.no_grad():
        net[0].weight.fill_(1 / math.sqrt(3))
    split = TensorSplit(torch.ones(64, 1), torch.arange(64) % 3)
    made = Data("one", Schema("classification", "tabular", (1,), 3), split, split, None, fingerprint="e" * 64)
    return make_run(folder, net, made, [Quadratic()], AUTO, **trainer)


def golden():
    """Gradient descent on w²: w shrinks by 1 - 2 lr in every step."""
    points, w = [], 1.0
    for step in range(finder.STEPS):
        lr = 1e-6 * 1e6 ** (step / 99)
        points.append((lr, w * w))
        w *= 1 - 2 * lr
    return points


def job(run, **more):
    return Job(run, "fit", 1, 1.0, run.parts, {}, 0, **more)


def test_the_range_test_on_a_quadratic_is_its_closed_form(tmp_path):
    run = quadratic(tmp_path)
    before = weights(run.model)
    curve = finder.range_test(job(run))
    assert len(curve) == 100
    assert curve == [(pytest.approx(lr), pytest.approx(loss, rel=1e-4, abs=1e-9)) for lr, loss in golden()]
    assert same(before, weights(run.model)) and run.model[0].weight.grad is None


def test_the_suggestion_is_where_the_smoothed_loss_falls_most_steeply():
    points = finder.smoothed(golden())
    losses = [loss for _, loss in golden()]
    share = [0.02 * 0.98 ** (99 - i) / (1 - 0.98**100) for i in range(100)]
    assert points[-1]["smoothed"] == pytest.approx(sum(a * b for a, b in zip(share, losses, strict=True)))
    slopes = [points[i + 1]["smoothed"] - points[i - 1]["smoothed"] for i in range(10, 99)]
    assert finder.steepest(points) == points[10 + slopes.index(min(slopes))]["lr"]
    assert 0.02 < finder.steepest(points) < 0.5  # w² falls at once for a rate of 1/2


def test_a_curve_ends_where_it_diverges_and_one_that_never_falls_is_refused():
    points = finder.smoothed([(1.0, 1.0)] * 20 + [(2.0, 1e3), (3.0, 1.0)])
    assert len(points) == 20
    with pytest.raises(RequestError, match="optimizer.lr: auto found no rate"):
        finder.steepest(points)


def test_the_fit_trains_with_what_was_found_and_a_resumed_run_reads_it(tmp_path, monkeypatch):
    run = quadratic(tmp_path, max_epochs=1)
    history = Fitter(tmp_path)(run)
    found = finder.steepest(finder.smoothed(golden()))
    assert run.settings.optimizer.rate == pytest.approx(found)
    assert history.epochs[0]["lr"] < found and any("range test" in note for note in history.notes)
    fixed = quadratic(tmp_path / "fixed", max_epochs=1)
    fixed.settings = replace(fixed.settings, optimizer=replace(AUTO, lr=run.settings.optimizer.rate))
    Fitter(tmp_path / "fixed")(fixed)
    assert same(weights(fixed.model), weights(run.model))  # nothing is left of the search
    monkeypatch.setattr(finder, "range_test", None)
    again = quadratic(tmp_path, max_epochs=1)
    history = Fitter(tmp_path)(again)
    assert again.settings.optimizer == run.settings.optimizer and any("range test" in note for note in history.notes)
    assert same(weights(again.model), weights(run.model))


def test_batch_norm_dropout_and_frozen_weights_are_as_they_were(tmp_path):
    run = make_run(tmp_path, mlp(), optimizer=replace(AUTO, name="adamw"), accumulate=2)
    run.model[0].weight.requires_grad_(False)
    before = weights(run.model)
    curve = finder.range_test(job(run))
    assert len(curve) == 100 and same(before, weights(run.model))
    assert not run.model[0].weight.requires_grad and run.model[4].weight.requires_grad
    assert curve == finder.range_test(job(run))


def test_the_smallest_batch_size_that_is_fast_enough():
    assert finder.sizes(64) == [16] and finder.sizes(1600) == [16, 32, 64] and finder.sizes(10**6)[-1] == 4096
    rows = [{"batch_size": float(16 * 2**i), "rows_per_second": speed} for i, speed in enumerate((50, 80, 91, 99, 100))]
    assert finder.enough(rows) == 64


@pytest.mark.parametrize(("per_row", "largest"), [(0.0, 256), (1.0, 128), (9.0, 16)], ids=["free", "tight", "tiny"])
def test_sizes_are_tried_until_twice_as_many_rows_would_not_fit(tmp_path, per_row, largest):
    """Steps of half a second, and 200 bytes of which 80% may be used."""
    run = make_run(tmp_path, linear(), data(train=4096), optimizer=AUTO)
    ticks, uses = iter(range(10**6)), iter(size for i in range(20) for size in (0.0, per_row * 16 * 2**i))
    rows = finder.throughputs(job(run), lambda: next(ticks) / 2, lambda: (next(uses), 200.0))
    # twice 128 rows' bytes are more than 160: 256 are not tried
    assert rows == [
        {"batch_size": float(size), "rows_per_second": 2.0 * size} for size in (16, 32, 64, 128, 256) if size <= largest
    ]


def test_a_batch_size_is_found_once_for_all_runs_that_share_a_cache(tmp_path, monkeypatch):
    from bigopt.store import Store

    monkeypatch.setattr(finder, "throughputs", lambda _job: [{"batch_size": 32.0, "rows_per_second": 1.0}])
    first = make_run(tmp_path, linear(), batch_size="auto", max_epochs=1)
    Fitter(tmp_path / "a", Store(tmp_path / "cache"))(first)
    assert first.settings.trainer.batch_size == 32
    monkeypatch.setattr(finder, "throughputs", None)
    second = make_run(tmp_path, linear(), batch_size="auto", max_epochs=1)
    Fitter(tmp_path / "b", Store(tmp_path / "cache"))(second)
    assert second.settings.trainer.batch_size == 32
    assert json.loads((tmp_path / "b" / "fits" / "000-fit" / "found.json").read_text())["found"]["batch_size"] == 32


def test_what_cannot_be_found_is_refused_before_anything_starts():
    base = {"model": {"name": "mlp"}, "dataset": {"name": "digits"}}
    assert check({**base, "optimizer": {"lr": "auto"}}).settings.optimizer.lr == "auto"
    with pytest.raises(RequestError, match="auto with trainer.devices=2"):
        check({**base, "optimizer": {"lr": "auto"}, "trainer": {"devices": 2}})
    with pytest.raises(RequestError, match=r"optimizer\.lr: got 'fast'"):
        check({**base, "optimizer": {"lr": "fast"}})
    with pytest.raises(RequestError, match="found in the first fit"):
        _ = AUTO.rate


def test_the_picture_marks_the_suggestion():
    found = finder.Found(lr=finder.steepest(finder.smoothed(golden())), curve=finder.smoothed(golden()))
    rows = found.tables()["lr_finder"]
    (marked,) = [row for row in rows if row["suggested"]]
    figure = draw_rates({"tables": {"lr_finder": {"rows": rows}}})
    (axes,) = figure.axes
    assert axes.lines[1].get_ydata().tolist() == [row["smoothed"] for row in rows]
    assert axes.lines[2].get_xdata().tolist() == [marked["lr"]]
    assert draw_rates({"tables": {}}) is None
