import math

import numpy as np
import pytest
import torch

from bigopt.report import paired_interval, resolvable
from bigopt.report.interval import mean_interval, shown_interval, student
from bigopt.vocabulary.objective import Monitor
from bigopt.vocabulary.task import Task

CLASSIFY = Task("classification", 3)
REGRESS = Task("regression", 2)
ACCURACY = Monitor("val/accuracy", "max")


def one_hot(classes: torch.Tensor, k: int = 3) -> torch.Tensor:
    return 5.0 * torch.nn.functional.one_hot(classes, k).float()


def paired_outputs(n: int, lost: int, won: int, wrong: int = 0):
    """``lost`` samples only the reference has right, ``won`` only the other, ``wrong`` neither."""
    y = torch.arange(n) % 3
    a, b = y.clone(), y.clone()
    b[:lost] = (y[:lost] + 1) % 3
    a[lost : lost + won] = (y[lost : lost + won] + 1) % 3
    tail = slice(lost + won, lost + won + wrong)
    a[tail] = b[tail] = (y[tail] + 2) % 3
    return one_hot(a), one_hot(b), y


@pytest.mark.parametrize(("n", "lost", "won"), [(2000, 120, 60), (5000, 400, 380), (1000, 40, 90)])
def test_accuracy_interval_is_the_normal_interval_of_paired_proportions(n, lost, won):
    a, b, y = paired_outputs(n, lost, won, wrong=50)
    low, high = paired_interval(CLASSIFY, ACCURACY, a, b, y)
    drop = (lost - won) / n
    half = 1.959964 * math.sqrt((lost + won) / n - drop**2) / math.sqrt(n)
    assert (low + high) / 2 == pytest.approx(drop, abs=0.05 * half)
    assert (high - low) / 2 == pytest.approx(half, rel=0.05)


def test_what_both_models_share_does_not_widen_the_interval():
    few = paired_interval(CLASSIFY, ACCURACY, *paired_outputs(2000, 40, 20))
    many = paired_interval(CLASSIFY, ACCURACY, *paired_outputs(2000, 40, 20, wrong=900))
    assert many[1] - many[0] == pytest.approx(few[1] - few[0], rel=0.06)


def test_it_covers_the_true_drop_as_often_as_it_says():
    rng, n, trials, covered = np.random.default_rng(1), 300, 400, 0
    for trial in range(trials):
        lost, won, _ = rng.multinomial(n, [0.10, 0.06, 0.84])
        low, high = paired_interval(CLASSIFY, ACCURACY, *paired_outputs(n, lost, won), seed=trial)
        covered += low <= 0.04 <= high
    assert 0.915 <= covered / trials <= 0.98  # 0.95 ± 3 standard errors


def test_loss_interval_is_the_t_interval_of_the_differences():
    torch.manual_seed(0)
    n = 1500
    y = torch.randint(0, 3, (n,))
    a = torch.randn(n, 3)
    b = a + 0.5 * torch.randn(n, 3)
    low, high = paired_interval(CLASSIFY, Monitor("val/loss", "min"), a, b, y)
    difference = torch.nn.functional.cross_entropy(b, y, reduction="none") - torch.nn.functional.cross_entropy(
        a, y, reduction="none"
    )
    half = 1.96 * difference.std().item() / math.sqrt(n)
    assert (low + high) / 2 == pytest.approx(difference.mean().item(), abs=0.08 * half)
    assert (high - low) / 2 == pytest.approx(half, rel=0.08)


def by_hand(task, metric, mode, a, b, y, replicates=600):
    """The bootstrap as the book has it: draw rows, compute the metric with Task.metrics."""
    generator, drops = torch.Generator().manual_seed(3), []
    for _ in range(replicates):
        rows = torch.randint(0, len(y), (len(y),), generator=generator)
        old, new = (task.metrics(z[rows], y[rows])[metric] for z in (a, b))
        drops.append(Monitor(metric, mode).drop(new, old))
    return np.quantile(drops, [0.025, 0.975])


@pytest.mark.parametrize(
    ("metric", "mode"), [("rmse", "min"), ("r2", "max"), ("mae", "min"), ("mse", "min"), ("loss", "min")]
)
def test_regression_metrics_equal_a_bootstrap_by_hand(metric, mode):
    torch.manual_seed(2)
    y = 100 + torch.randn(250, 2) * torch.tensor([1.0, 3.0])
    a, b = y + torch.randn_like(y), y + 1.2 * torch.randn_like(y) + 0.2
    low, high = paired_interval(REGRESS, Monitor(f"val/{metric}", mode), a, b, y)
    expected = by_hand(REGRESS, metric, mode, a, b, y)
    assert [low, high] == pytest.approx(expected, abs=0.12 * (expected[1] - expected[0]))


def test_macro_f1_equals_a_bootstrap_by_hand_and_ignores_absent_classes():
    torch.manual_seed(4)
    task, n = Task("classification", 12), 240  # 12 outputs, 4 classes that occur
    y = torch.randint(0, 4, (n,))
    a = torch.where(torch.rand(n) < 0.9, y, (y + 1) % 4)
    b = torch.where(torch.rand(n) < 0.8, y, (y + 1) % 4)
    a, b = one_hot(a, 12), one_hot(b, 12)
    low, high = paired_interval(task, Monitor("test/macro_f1", "max"), a, b, y)
    expected = by_hand(task, "macro_f1", "max", a, b, y)
    assert [low, high] == pytest.approx(expected, abs=0.1 * (expected[1] - expected[0]))


def test_it_is_deterministic_and_depends_on_seed_and_level():
    torch.manual_seed(0)
    y = torch.randint(0, 3, (200,))
    a, b = torch.randn(200, 3), torch.randn(200, 3)
    monitor = Monitor("val/loss", "min")
    first = paired_interval(CLASSIFY, monitor, a, b, y, seed=7)
    assert paired_interval(CLASSIFY, monitor, a, b, y, seed=7) == first
    assert paired_interval(CLASSIFY, monitor, a, b, y, seed=8) != first
    low, high = paired_interval(CLASSIFY, monitor, a, b, y, level=0.5, seed=7)
    assert first[0] < low < high < first[1]


def test_equal_models_have_no_drop_and_swapping_turns_the_sign():
    a, b, y = paired_outputs(500, 30, 10)
    assert paired_interval(CLASSIFY, ACCURACY, a, a, y) == (0.0, 0.0)
    low, high = paired_interval(CLASSIFY, ACCURACY, a, b, y)
    back = paired_interval(CLASSIFY, ACCURACY, b, a, y)
    assert [-back[1], -back[0]] == pytest.approx([low, high], abs=0.004)


@pytest.mark.parametrize("metric", ["bytes", "speedup.batch_1", "target/agreement", "val/unheard_of", "train/accuracy"])
def test_metrics_that_no_prediction_of_this_split_decides_have_no_interval(metric):
    assert paired_interval(CLASSIFY, Monitor(metric, "max"), *paired_outputs(50, 3, 1)) is None


def test_missing_outputs_empty_splits_and_nan_have_no_interval():
    a, b, y = paired_outputs(50, 3, 1)
    assert paired_interval(CLASSIFY, ACCURACY, None, b, y) is None
    assert paired_interval(CLASSIFY, ACCURACY, a, None, y) is None
    assert paired_interval(CLASSIFY, ACCURACY, a[:0], b[:0], y[:0]) is None
    assert paired_interval(CLASSIFY, Monitor("val/loss", "min"), a, b * float("nan"), y) is None


def test_resolvable():
    assert resolvable((0.001, 0.02)) is True
    assert resolvable((-0.02, -0.001)) is True
    assert resolvable((-0.001, 0.02)) is False
    assert resolvable((0.0, 0.02)) is False
    assert resolvable(None) is None


def test_the_mean_of_seeds_has_students_interval():
    mean, half = mean_interval([1.0, 2.0, 3.0])
    assert (mean, half) == pytest.approx((2.0, 4.302653 / 3**0.5), rel=1e-6)
    assert mean_interval([5.0])[0] == 5.0 and math.isnan(mean_interval([5.0])[1])
    assert student(2) == pytest.approx(12.7062, rel=1e-5)


def test_an_interval_is_shown_as_mean_and_half_its_width():
    assert shown_interval([0.01, 0.02, 0.03], scale=100) == "2.0 ± 2.5"
    assert shown_interval([1.0, 2.0, 3.0], 2, sign=True) == "+2.00 ± 2.48"
    assert shown_interval([-0.5]) == "-0.5"
