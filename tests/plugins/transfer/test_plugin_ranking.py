"""LogME is the maximum of the evidence, and the better source is chosen."""

import math

import torch
from train.train_fakes import data, make_run
from transfer_nets import Build, net

from bigopt.pipeline.notes import Collected
from bigopt_plugins.transfer._ranking import best_source, logme


def evidence(x, target, alpha, beta):
    """Log evidence of Bayesian linear regression, from its definition (Bishop 2006, eq. 3.86)."""
    n, d = x.shape
    a = alpha * torch.eye(d, dtype=x.dtype) + beta * x.T @ x
    m = beta * torch.linalg.solve(a, x.T @ target)
    error = beta / 2 * (target - x @ m).square().sum() + alpha / 2 * m.square().sum()
    return (
        d / 2 * math.log(alpha) + n / 2 * math.log(beta) - error - torch.logdet(a) / 2 - n / 2 * math.log(2 * math.pi)
    )


def samples(noise, n=30, d=4):
    torch.manual_seed(3)
    y = torch.arange(n) % 3
    x = torch.randn(n, d, dtype=torch.float64) * noise
    return x + torch.nn.functional.one_hot(y, d).double(), y


def test_logme_is_the_maximum_of_the_evidence_over_both_precisions():
    x, y = samples(0.5)
    best = []
    for label in range(3):
        target = (y == label).double()
        grid = [10 ** (k / 8) for k in range(-6, 15)]
        best.append(max(float(evidence(x, target, a, b)) for a in grid for b in grid))
    value = logme(x, y)
    assert value >= sum(best) / 3 / len(y) - 1e-9
    assert value - sum(best) / 3 / len(y) < 2e-3


def test_logme_with_more_features_than_samples_is_finite_and_clear_features_win():
    clear, y = samples(0.1)
    blurred, _ = samples(2.0)
    assert logme(clear, y) > logme(blurred, y)
    wide = torch.randn(10, 40, generator=torch.Generator().manual_seed(0))
    assert math.isfinite(logme(wide, torch.arange(10) % 2))


def test_the_source_with_the_greatest_evidence_is_chosen(tmp_path):
    run = make_run(tmp_path, net(), data(image=True))
    run.report = Collected()
    run.settings.extra["model"] = {"name": "resnet"}
    good, flat = net(seed=1), net(seed=2)
    with torch.no_grad():
        for parameter in flat.net[0][1][0].parameters():
            parameter.zero_()
    models = iter([flat, good])
    run.build = Build(good)
    run.build.model = lambda *_a, **_k: next(models)
    spec, source = best_source(run, lambda *_a, **_k: None, ["first", "second"], None)
    assert (spec, source.model) == ("second", good)
    assert [row["chosen"] for row in run.report.tables["logme"]] == [False, True]
