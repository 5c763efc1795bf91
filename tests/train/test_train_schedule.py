"""Learning rates against closed forms and torch's own schedulers."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import nn

from bigopt.train.schedule import Plateau, factor
from bigopt.vocabulary.objective import Monitor
from bigopt.vocabulary.settings import Scheduler

TOTAL, PER_EPOCH = 20, 5


def curve(**settings: Any) -> list[float]:
    return [factor(Scheduler(**settings), step, TOTAL, PER_EPOCH) for step in range(TOTAL)]


def test_constant() -> None:
    assert curve(name="constant") == [1.0] * TOTAL


def test_cosine() -> None:
    expected = [0.1 + 0.9 * (1 + math.cos(math.pi * t / TOTAL)) / 2 for t in range(TOTAL)]
    assert curve(name="cosine", final=0.1) == pytest.approx(expected)


def test_linear_and_polynomial() -> None:
    assert curve(name="linear", final=0.5) == pytest.approx([1 - 0.5 * t / TOTAL for t in range(TOTAL)])
    assert curve(name="polynomial", power=3.0) == pytest.approx([(1 - t / TOTAL) ** 3 for t in range(TOTAL)])


def test_factors_per_epoch() -> None:
    assert curve(name="exponential", gamma=0.5) == pytest.approx([0.5 ** (t / PER_EPOCH) for t in range(TOTAL)])
    assert curve(name="multiplicative", gamma=0.5) == pytest.approx([0.5 ** (t // PER_EPOCH) for t in range(TOTAL)])
    assert curve(name="step", gamma=0.1, step_epochs=2) == pytest.approx([1.0] * 10 + [0.1] * 10)


def test_warmup_rises_to_the_peak_and_then_decays() -> None:
    rates = curve(name="linear", warmup=0.2)
    assert rates[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert rates[5:] == pytest.approx([1 - t / 16 for t in range(1, 16)])


def test_one_cycle_equals_torchs() -> None:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=1.0, total_steps=TOTAL, pct_start=0.3)
    expected = []
    for _ in range(TOTAL):
        expected.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    assert curve(name="one_cycle") == pytest.approx(expected)


def test_plateau_equals_torchs() -> None:
    values = [0.5, 0.6, 0.6, 0.55, 0.6, 0.6, 0.7, 0.1, 0.1, 0.1, 0.1, 0.1]
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    theirs = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, "max", factor=0.5, patience=1, threshold=0.0)
    ours = Plateau()
    for value in values:
        theirs.step(value)
        ours.update(Scheduler("plateau", gamma=0.5, patience=1), Monitor("val/accuracy", "max"), value)
        assert ours.factor == optimizer.param_groups[0]["lr"]
    assert ours.factor == 0.0625
