"""A search ends when Optuna's terminator sees nothing left to gain, and says so."""

import time

import optuna
import pytest
from optuna.terminator import RegretBoundEvaluator
from search_fakes import plan, report, run, space, tuner

from bigopt.search.plan import Result
from bigopt.search.terminator import Worth, improvement

LINES = ("x=interval(0,1)",)


def flat(task):
    time.sleep(0.05)  # a look at a study takes about as long as some trials
    return Result("finished", report(1.0))


def sloped(task):
    return Result("finished", report(5 * (task.values["x"] - 0.3) ** 2))


def test_the_bound_is_optunas():
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=1))
    study.optimize(lambda trial: (trial.suggest_float("x", 0, 1) - 0.3) ** 2, 8)
    theirs = RegretBoundEvaluator(min_n_trials=8, seed=0)
    assert improvement(study, 8) == pytest.approx(theirs.evaluate(study.trials, study.direction))


def test_a_search_ends_where_nothing_is_left_to_gain(tmp_path):
    made = plan(tmp_path, 500, space=space(*LINES), tuner=tuner("random"), worth=1e-3, worth_trials=5, workers=1)
    found = run(made, flat)
    assert 5 <= len(found.known) < 500 and found.code == 0
    assert found.why is not None and found.why.startswith("val/loss can hardly gain 0.001 more: at most ")


def test_a_search_goes_on_where_something_is_left(tmp_path):
    made = plan(tmp_path, 8, space=space(*LINES), tuner=tuner("random"), worth=1e-3, worth_trials=5)
    found = run(made, sloped)
    assert len(found.known) == 8 and found.why is None
    worth = Worth(made)
    assert worth.over(list(found.known)) is None and worth.left is not None and worth.left > 1e-3
