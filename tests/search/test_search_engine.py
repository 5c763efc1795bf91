"""Asking, trying, telling: what is counted, what is refused, and that a resumed sweep is the uninterrupted one."""

from dataclasses import replace

import optuna
import pytest
from search_fakes import good, loss, plan, points, report, run, slow, space, states, tuner

from bigopt.search.conditions import rules
from bigopt.search.configurations import UNTIL, VOID, configurations
from bigopt.search.outcome import best, pareto
from bigopt.search.plan import Result
from bigopt.search.reporting import Reporter
from bigopt.search.study import load, warm_start
from bigopt.search.study import prepare as prepare_study
from bigopt.vocabulary.errors import Paused, Pruned, RequestError, RunFailed
from bigopt.vocabulary.objective import Monitor
from bigopt.vocabulary.tuner import Assignment

LOSS = Monitor("val/loss", "min")


@pytest.mark.parametrize("kind", ["random", "tpe"])
def test_the_same_points_as_optuna_asked_directly(tmp_path, kind):
    chosen, searched = tuner(kind), space()
    direct = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0), pruner=optuna.pruners.NopPruner())
    for number in range(8):
        direct.sampler = chosen.sampler(number)
        trial = direct.ask()
        values = {name: trial._suggest(name, each) for name, each in searched.distributions.items()}
        direct.tell(trial, loss(values))
    found = run(plan(tmp_path, 8, tuner=chosen))
    assert points(found.known) == [(trial.params, trial.values) for trial in direct.trials]


@pytest.mark.parametrize("kind", ["random", "tpe"])
def test_resumed_equals_uninterrupted(tmp_path, kind):
    whole = run(plan(tmp_path / "whole", 9, tuner=tuner(kind)))
    run(plan(tmp_path / "parts", 4, tuner=tuner(kind)))
    parts = run(plan(tmp_path / "parts", 9, tuner=tuner(kind)))
    assert points(parts.known) == points(whole.known)
    assert len(parts.known) == 9  # in total


@pytest.mark.parametrize("kind", ["random", "tpe"])
def test_interrupted_and_resumed_equals_uninterrupted(tmp_path, kind):
    whole = run(plan(tmp_path / "whole", 9, tuner=tuner(kind)))
    parts = plan(tmp_path / "parts", 9, tuner=tuner(kind))
    stopped = run(parts, lambda task: Result("interrupted", signal=15) if task.number == 5 else good(task))
    assert stopped.code == 143 and states(stopped) == ["complete"] * 5 + ["waiting"]
    assert points(run(parts).known) == points(whole.known)


def test_nothing_is_left_of_a_finished_sweep(tmp_path):
    run(plan(tmp_path, 3))
    again = run(plan(tmp_path, 3), lambda task: pytest.fail("tried again"))
    assert (again.code, states(again)) == (0, ["complete"] * 3)


def test_total_below_done_is_refused(tmp_path):
    run(plan(tmp_path, 4))
    with pytest.raises(RequestError, match="n_trials: got 3, but the study has 4 trials already, expected at least 4"):
        run(plan(tmp_path, 3))


def test_a_changed_space_is_refused_with_the_difference(tmp_path):
    run(plan(tmp_path, 2, fixed={"objective": "a"}))
    with pytest.raises(RequestError) as caught:
        run(plan(tmp_path, 2, space=space("x=interval(0,2)", "d=1,2"), fixed={"objective": "b"}))
    first, second, third, last = caught.value.problems
    assert first == "study study: x: the study has interval(0.0, 1.0), got interval(0.0, 2.0)"
    assert second == "study study: c: the study has choice(a,b), got nothing"
    assert third == "study study: d: the study has nothing, got choice(1,2)"
    assert last.startswith("study study: objective: the study has a, got b; go on with the same space")


def test_failures_are_recorded_and_end_nothing(tmp_path):
    problems = {
        1: Result("failed", problems=("baseline: the loss is not finite in epoch 1",)),
        2: Result("failed", problems=("RuntimeError: CUDA out of memory. Tried",)),
        3: Result("refused", problems=("ratio: got 2",)),
        4: Result("finished", report(0.0) | {"stages": [{"name": "baseline", "metrics": {}}]}),
    }
    found = run(plan(tmp_path, 6), lambda task: problems.get(task.number) or good(task))
    assert states(found) == ["complete", "failed", "failed", "failed", "failed", "complete"]
    reasons = [each.last.user_attrs.get("bigopt:reason", "").partition(":")[0] for each in found.known]
    assert reasons == ["", "not finite", "out of memory", "ratio", "the report has no value of val/loss", ""]
    assert found.code == 0


def test_fail_fast_ends_the_sweep(tmp_path):
    found = run(plan(tmp_path, 6, fail_fast=True), lambda task: Result("failed") if task.number == 1 else good(task))
    assert states(found) == ["complete", "failed"]


def test_a_sweep_without_a_completed_trial_gives_1(tmp_path):
    assert run(plan(tmp_path, 2), lambda task: Result("failed", problems=("x",))).code == 1


def test_budgets_are_constraints_and_decide_what_is_best(tmp_path):
    def sized(task):
        size = 100 * task.values["x"]
        met = size <= 20
        budget = {"max_bytes": {"limit": 20, "value": size, "met": met}, "met": met}
        return Result("finished", report(loss(task.values), bytes=size) | {"budget": budget})

    found = run(plan(tmp_path, 25, tuner=tuner("random")), sized)
    top = best(found.known, (LOSS,))
    assert top.last.params["x"] <= 0.2 and found.code == 0
    assert top.last.constraints["max_bytes"] == pytest.approx(0, abs=20) and top.last.constraints["max_bytes"] <= 0
    able = [each for each in found.known if each.last.params["x"] <= 0.2]
    assert top.last.values[0] == min(each.last.values[0] for each in able)
    none = run(plan(tmp_path / "none", 3, space=space("x=interval(0.5,1)", "c=a,b")), sized)
    assert none.code == 3


def test_several_objectives_give_a_pareto_set(tmp_path):
    objectives = (LOSS, Monitor("bytes", "max"))
    nsga = tuner("random")
    found = run(
        plan(tmp_path, 10, objectives=objectives, tuner=nsga),
        lambda task: Result("finished", report(loss(task.values), bytes=task.values["x"])),
    )
    front = pareto(found.known, objectives)
    expected = [trial.number for trial in load(plan(tmp_path, objectives=objectives).storage, "study").best_trials]
    assert sorted(each.number for each in front) == sorted(expected)


def test_known_points_come_first_and_count(tmp_path):
    point = {"x": 0.5, "c": "b"}
    found = run(plan(tmp_path, 4, enqueue=[point]))
    assert found.known[0].last.params == point and len(found.known) == 4
    again = run(plan(tmp_path, 5, enqueue=[point, {"x": 0.25}]))
    assert again.known[4].last.params["x"] == 0.25 and len(again.known) == 5


def test_forbidden_combinations_are_never_tried_and_do_not_count(tmp_path, monkeypatch):
    searched = space(forbid=(rules({"c": "a"}, "forbid"), rules({"x": "> 0.8"}, "forbid")))
    found = run(plan(tmp_path, 8, space=searched, tuner=tuner("random")))
    assert len(found.known) == 8
    assert all(each.last.params["c"] == "b" and each.last.params["x"] <= 0.8 for each in found.known)
    monkeypatch.setattr("bigopt.search.claim.FORBIDDEN_TRIES", 10)
    with pytest.raises(RunFailed, match="forbidden combinations"):
        run(plan(tmp_path / "all", 1, space=space("c=a,b", forbid=(rules({"c": ["a", "b"]}, "forbid"),))))


def test_a_tuners_own_points_are_each_tried_once(tmp_path):
    def grid(_distributions):
        return ({"x": x, "c": c, "d": d} for c in "ab" for x in (0.0, 0.5) for d in (1, 2))

    searched = space("x=interval(0,1)", "c=a,b", "d=1,2")
    only_a = tuple(replace(p, when=rules({"c": "a"}, "when")) if p.name == "d" else p for p in searched.parameters)
    found = run(plan(tmp_path, None, space=replace(searched, parameters=only_a), tuner=tuner("random", points=grid)))
    assert [tuple(each.last.params.values()) for each in found.known] == [
        (0.0, "a", 1), (0.0, "a", 2), (0.5, "a", 1), (0.5, "a", 2), (0.0, "b"), (0.5, "b")
    ]  # fmt: skip
    fewer = run(plan(tmp_path / "fewer", 3, space=searched, tuner=tuner("random", points=grid)))
    assert len(fewer.known) == 3


def test_stops_at_the_target_and_when_nothing_improves(tmp_path):
    reached = run(plan(tmp_path / "t", 50, workers=1, target=0.5), slow(0.05))
    assert "target" in reached.why and len(reached.known) < 50 and reached.code == 0
    flat = run(
        plan(tmp_path / "p", 50, workers=1, patience=3, tuner=tuner("random")),
        lambda task: slow(0.05)(task) and Result("finished", report(1.0)),
    )
    assert "no better one" in flat.why and len(flat.known) < 50


def test_warm_start_teaches_without_counting(tmp_path):
    run(plan(tmp_path / "old", 6))
    fresh = plan(tmp_path / "new", 3)
    prepare_study(fresh)
    old = load(plan(tmp_path / "old").storage, "study")
    assert warm_start(fresh, old) == 6
    assert warm_start(fresh, old) == 0
    found = run(fresh)
    assert len(found.known) == 3
    trials = load(fresh.storage, "study").get_trials()
    assert sum(VOID in trial.user_attrs for trial in trials) == 6 and len(trials) == 9


def curve(x, epoch):
    return (x - 0.3) ** 2 + 1 / epoch


def training(made, epochs=9):
    """Trains epoch by epoch like a job, from where a paused one stopped; remembers the epochs of each configuration."""
    spent = {}

    def train(task):
        study = load(made.storage, made.study)
        study.pruner = made.tuner.pruner or study.pruner
        reporter = Reporter(optuna.Trial(study, study.get_trials()[task.trial]._trial_id), LOSS)
        reporter.plan({"baseline": 5, "pruning": epochs, "quantization": 0})
        try:
            reporter.epoch("baseline", 5, {"val/loss": 0.0})  # of another stage: never reported
            for epoch in range(spent.get(task.number, 0) + 1, epochs + 1):
                spent[task.number] = epoch
                reporter.epoch(
                    "pruning-2" if epoch > 4 else "pruning", 5 + epoch, {"val/loss": curve(task.values["x"], epoch)}
                )
        except Paused:
            return Result("paused")
        except Pruned:
            return Result("pruned")
        return Result("finished", report(curve(task.values["x"], epochs)))

    return train, spent


def test_a_pruned_trial_really_stops_and_is_no_failure(tmp_path):
    pruner = optuna.pruners.MedianPruner(n_startup_trials=3, n_warmup_steps=2)
    made = plan(tmp_path, 12, tuner=tuner("random", pruner=pruner))
    train, spent = training(made)
    found = run(made, train)
    pruned = [each for each in found.known if each.state == "pruned"]
    assert pruned and found.code == 0 and "failed" not in states(found)
    for each in found.known:
        steps = each.last.intermediate_values
        assert list(steps) == list(range(1, spent[each.number] + 1))  # one count, from 1, over the stage's rounds
        assert all(value == pytest.approx(curve(each.last.params["x"], epoch)) for epoch, value in steps.items())
        assert (spent[each.number] == 9) == (each.state == "complete")
    assert sum(spent.values()) < 12 * 9


class Halving:
    """Four configurations of 3 epochs; the better two go on to 9."""

    total = 4

    def next(self, seen):
        if len(seen) < 4:
            return Assignment(len(seen), 0, 3)
        if any(each.standing == "running" for each in seen):
            return None
        for each in self._best(seen):
            if each.standing == "paused":
                return Assignment(each.id, 3, 9)
        return None

    def stopped(self, seen):
        if len(seen) < 4 or any(each.standing == "running" for each in seen):
            return []
        kept = {each.id for each in self._best(seen)}
        return [each.id for each in seen if each.standing == "paused" and each.id not in kept]

    def finished(self, seen):
        return self.next(seen) is None and all(each.standing != "running" for each in seen)

    def _best(self, seen):
        return sorted(seen, key=lambda each: each.values.get(3, 9.0))[:2]


def test_a_scheduler_decides_who_goes_on(tmp_path):
    made = plan(tmp_path, None, tuner=tuner("random", scheduler=Halving()))
    train, spent = training(made)
    found = run(made, train)
    assert sorted(spent.values()) == [3, 3, 9, 9]  # the promoted ones went on, and did not begin again
    assert sorted(states(found)) == ["complete", "complete", "pruned", "pruned"]
    worst = max(each.last.intermediate_values[3] for each in found.known if each.state == "complete")
    assert all(each.last.values[0] >= worst for each in found.known if each.state == "pruned")
    assert [each.last.user_attrs[UNTIL] for each in found.known if each.state == "complete"] == [9, 9]
    trials = load(made.storage, made.study).get_trials()
    assert len(trials) == 4 == len(configurations(trials))
