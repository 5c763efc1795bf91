"""Per-layer ratios from a scan: each within its own limit, together the total where that is possible."""

import pytest
import torch
from torch import nn
from train.train_fakes import data, make_run

from bigopt.pipeline import driver
from bigopt.pipeline.notes import Collected
from bigopt.vocabulary.errors import RequestError
from bigopt.vocabulary.network import Network
from bigopt.vocabulary.run import History
from bigopt.vocabulary.settings import Recover, Schedule, StepOptions
from bigopt_plugins.compression._from_sensitivity import Shares
from bigopt_plugins.compression.channel_pruning import ChannelPruning


def rows(**layers):
    return [
        {"layer": layer, "strength": strength, "value": 0.9 - drop, "drop": drop}
        for layer, drops in layers.items()
        for strength, drop in zip((0.25, 0.5, 0.75), drops, strict=True)
    ]


SCAN = rows(a=(0.0, 0.01, 0.2), b=(0.05, 0.0, 0.0), c=(-0.01, 0.0, 0.02))


def test_a_share_is_allowed_only_if_all_smaller_ones_are():
    shares = Shares.of(SCAN, {"a": 8, "b": 8, "c": 16}, limit=0.02)
    assert shares.allowed == {"a": 0.5, "b": 0.0, "c": 0.75}
    assert shares.reachable() == pytest.approx((4 + 0 + 12) / 32)


def test_a_total_within_reach_scales_all_alike_and_one_out_of_reach_stops_at_the_limits():
    shares = Shares.of(SCAN, {"a": 8, "b": 8, "c": 16}, limit=0.02)
    assert shares.ratios(0.25) == pytest.approx({"a": 0.25, "b": 0.0, "c": 0.375})
    assert shares.ratios(0.9) == pytest.approx(shares.allowed)


def test_rounds_end_where_one_shot_ends():
    shares = Shares.of(SCAN, {"a": 8, "b": 8, "c": 16}, limit=0.02)
    left = {"a": 8, "b": 8, "c": 16}
    for strength in (0.25, 1 / 3):  # together 0.5
        lost = shares.next(left, strength)
        left = {name: count - int(lost[name] * count + 1e-9) for name, count in left.items()}
    assert left == {"a": 4, "b": 8, "c": 4}


def net():
    torch.manual_seed(0)
    return Network(
        nn.Sequential(
            nn.Conv2d(1, 8, 3, padding=1),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.Conv2d(8, 16, 3, padding=1),
            nn.BatchNorm2d(16),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(16, 3),
        )
    )


def no_fit(run, epochs=None, *, lr=None, name="fit", parts=None, share=False):
    return History(name)


@pytest.mark.parametrize("schedule", [Schedule(), Schedule("iterative", rounds=3)])
def test_the_driver_scans_and_each_layer_keeps_within_its_own_drop(tmp_path, monkeypatch, schedule):
    run = make_run(tmp_path, net(), data(image=True))
    run.report = Collected()
    # the second layer costs 0.01 a channel, the first nothing until six of its eight are gone
    cost = lambda model: 0.01 * (16 - model.net[3].out_channels) + 0.5 * (model.net[0].out_channels < 3)  # noqa: E731
    monkeypatch.setattr(driver, "score", lambda _run, model: 0.9 - cost(model))
    options = StepOptions(recover=Recover(epochs=0), schedule=schedule)
    part = ChannelPruning(ratio="from_sensitivity", total=0.5, layer_drop=0.045)
    driver.compress(run, "channel_pruning", part, options, no_fit)
    # allowed: 0.7 of net.0 (5 of 8 gone), 0.3 of net.3 (4 of 16 gone): 0.43 of 24 units, less than the 0.5 asked for
    table = {row["layer"]: row for row in run.report.tables["ratios_from_sensitivity"]}
    assert (table["net.0"]["allowed"], table["net.3"]["allowed"]) == (0.7, 0.3)
    assert (run.model.net[0].out_channels, run.model.net[3].out_channels) == (3, 12)
    assert any("not 0.5" in note for note in run.report.notes)
    assert {row["layer"] for row in run.report.tables["sensitivity_channel_pruning"]} == {"net.0", "net.3"}


def test_max_drop_still_bisects_over_the_total(tmp_path, monkeypatch):
    run = make_run(tmp_path, net(), data(image=True))
    run.report = Collected()
    run.baseline = driver.frozen_copy(run.model)
    gone = lambda model: 24 - model.net[0].out_channels - model.net[3].out_channels  # noqa: E731
    monkeypatch.setattr(driver, "score", lambda _run, model: 0.9 - 0.01 * gone(model))
    part = ChannelPruning(ratio="from_sensitivity", total=0.5, layer_drop=1.0)
    options = StepOptions(recover=Recover(epochs=0), max_drop=0.1)
    outcome = driver.compress(run, "channel_pruning", part, options, no_fit)
    assert outcome.strength == 0.4 and gone(run.model) <= 10


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"ratio": "from_scan"}, "ratio: got 'from_scan'"),
        ({"total": 1.0}, "total: got 1.0"),
        ({"layer_drop": -0.1}, "layer_drop: got -0.1"),
    ],
)
def test_arguments_out_of_range(arguments, message):
    with pytest.raises(RequestError, match=message):
        ChannelPruning(**arguments)
