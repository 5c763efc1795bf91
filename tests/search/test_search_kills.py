"""SIGKILL of a worker, of the parent and of everything: no trial is lost, none is counted twice."""

import multiprocessing
import os
import random
import signal
import time

import psutil
import pytest
from search_fakes import dying, good, marking, plan, run, slow, states

from bigopt.search.configurations import configurations
from bigopt.search.plan import Result
from bigopt.search.study import load

FORK = multiprocessing.get_context("fork")


def parent(made, evaluate, folder):
    """A sweep in a process of its own, which writes down its exit code."""

    def main():
        os.setsid()
        (folder / "code").write_text(str(run(made, evaluate).code))
        os._exit(0)

    process = FORK.Process(target=main)
    process.start()
    return process


def known(made):
    study = load(made.storage, made.study)
    return configurations(study.get_trials(deepcopy=False))


def wait_for(condition, seconds=20.0):
    end = time.monotonic() + seconds
    while True:
        try:
            if condition():
                return
        except KeyError:  # the study is not there yet
            pass
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)


def complete(made, evaluate, n_trials):
    """Runs what is left, and checks that everything is there once."""
    found = run(made, evaluate)
    assert found.code == 0
    assert states(found) == ["complete"] * n_trials
    trials = load(made.storage, made.study).get_trials()
    assert sum(trial.state.name == "COMPLETE" for trial in trials) == n_trials
    assert not [trial for trial in trials if trial.state.name in ("RUNNING", "WAITING")]
    return found


@pytest.mark.parametrize("storage", ["journal", "sqlite"])
def test_a_killed_worker_is_replaced_and_its_trial_tried_again(tmp_path, storage):
    url = f"sqlite:///{tmp_path}/study.db" if storage == "sqlite" else None

    made = plan(tmp_path, 6, workers=2, storage=url)
    found = complete(made, dying(tmp_path, lambda number: number == 1), 6)
    assert [len(each.tries) for each in found.known] == [1, 2, 1, 1, 1, 1]
    again = found.known[1]
    assert again.tries[0].params == again.tries[1].params
    assert again.tries[0].user_attrs["bigopt:reason"] == "its process died"


def test_a_trial_that_always_dies_fails_once_its_retries_are_used_up(tmp_path):
    def always_dying(task):
        if task.number == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return good(task)

    found = run(plan(tmp_path, 3, workers=1, max_retries=1), always_dying)
    assert states(found) == ["complete", "failed", "complete"]
    assert len(found.known[1].tries) == 2 and found.code == 0


@pytest.mark.parametrize("everything", [False, True], ids=["parent", "group"])
def test_kills_at_random_moments(tmp_path, everything):
    moments = random.Random(everything)
    total = 24
    made = plan(tmp_path, total, workers=2, max_retries=100)
    for _ in range(5):
        process = parent(made, marking(tmp_path, 0.02), tmp_path)
        time.sleep(moments.uniform(0.05, 0.5))
        children = psutil.Process(process.pid).children(recursive=True) if process.is_alive() else []
        for victim in [process.pid, *(child.pid for child in children if everything)]:
            try:
                os.kill(victim, signal.SIGKILL)
            except ProcessLookupError:
                pass
        process.join()
        psutil.wait_procs(children, timeout=10)
        assert not [child for child in children if child.is_running() and child.status() != psutil.STATUS_ZOMBIE]
    found = complete(made, marking(tmp_path, 0.0), total)
    ended = {int(line.split()[0]) for line in (tmp_path / "ended").read_text().splitlines()}
    assert ended == {each.number for each in found.known}


def test_a_torn_journal_is_gone_on_with(tmp_path):
    made = plan(tmp_path, 3)
    run(made)
    with open(made.storage.url, "ab") as file:
        file.write(b'{"op_code": 5, "worker')
    complete(plan(tmp_path, 6), good, 6)


def test_two_parents_share_one_study(tmp_path):
    made = plan(tmp_path, 16, workers=1)
    both = [parent(made, marking(tmp_path, 0.02), tmp_path) for _ in range(2)]
    for process in both:
        process.join(30)
        assert process.exitcode == 0
    assert [each.state for each in known(made)] == ["complete"] * 16
    workers = {line.split()[1] for line in (tmp_path / "ended").read_text().splitlines()}
    assert len(workers) == 2


def test_ctrl_c_once_finishes_what_runs(tmp_path):
    made = plan(tmp_path, 50, workers=1)
    process = parent(made, slow(0.3), tmp_path)
    wait_for(lambda: made.storage.path.exists() and any(each.state == "running" for each in known(made)))
    os.kill(process.pid, signal.SIGINT)
    process.join(20)
    assert (tmp_path / "code").read_text() == "130"
    assert {each.state for each in known(made)} == {"complete"}


def test_ctrl_c_twice_interrupts_and_loses_nothing(tmp_path):
    made = plan(tmp_path, 4, workers=1)
    process = parent(made, slow(30), tmp_path)
    wait_for(lambda: made.storage.path.exists() and any(each.state == "running" for each in known(made)))
    began = time.monotonic()
    os.kill(process.pid, signal.SIGINT)
    time.sleep(0.1)
    os.kill(process.pid, signal.SIGINT)
    process.join(20)
    assert time.monotonic() - began < 15
    assert (tmp_path / "code").read_text() == "130"
    assert [each.state for each in known(made)] == ["waiting"]
    found = complete(made, good, 4)
    assert found.known[0].tries[0].params == found.known[0].tries[1].params
    assert found.known[0].last.user_attrs["bigopt:losses"] == 0


def test_sigterm_gives_143(tmp_path):
    made = plan(tmp_path, 4, workers=1)
    process = parent(made, slow(30), tmp_path)
    wait_for(lambda: made.storage.path.exists() and any(each.state == "running" for each in known(made)))
    os.kill(process.pid, signal.SIGTERM)
    process.join(20)
    assert (tmp_path / "code").read_text() == "143"


def test_a_trial_of_another_machine_counts_as_dead_without_signs_of_life(tmp_path):
    from bigopt.search.claim import Reaper
    from bigopt.search.study import prepare

    made = plan(tmp_path, 2, grace=0.2, heartbeat=0.05)
    study = prepare(made)
    trial = study.ask()
    trial.set_user_attr("bigopt:owner", "otherhost00-boot000000-77-1")
    trial.set_user_attr("bigopt:beat", 1.0)
    reaper = Reaper(made, study)
    assert reaper.reap() == []
    time.sleep(0.15)
    trial.set_user_attr("bigopt:beat", 2.0)  # their clock may be years away: only that it moves counts
    assert reaper.reap() == []
    time.sleep(0.15)
    assert reaper.reap() == []
    time.sleep(0.1)
    assert reaper.reap() == [0]
    assert [each.state for each in known(made)] == ["waiting"]
    complete(made, good, 2)


def test_an_interrupted_result_is_no_failure(tmp_path):
    made = plan(tmp_path, 2)
    run(made, lambda task: Result("interrupted", signal=15))
    assert [each.state for each in known(made)] == ["waiting"]
    complete(made, good, 2)
