"""Hydra's launchers carry trials to other processes: pruning, pausing, kills and stopping work through each."""

import csv
import importlib.util
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hydra.errors import ConfigCompositionException

from bigopt.config._messages import one_line
from bigopt.search import away
from bigopt.search.keys import WORKER
from bigopt.store import Owner, me

TESTS = str(Path(__file__).parent)
WORDS = (
    "dataset=digits", "model=mlp", "tracking=none", "hydra.sweeper.plots=false", "hydra.sweeper.confirm=0",
    "trainer.max_epochs=3", "objective={val/accuracy:max}",
)  # fmt: skip
HYPERBAND = ("tuner=hyperband", "optimizer.lr=interval(0.1,0.9)")
RANDOM = ("tuner=random", "optimizer.lr=interval(0.1,0.9)", "hydra.sweeper.n_trials=3")
RAY = importlib.util.find_spec("ray") is not None and importlib.util.find_spec("hydra_plugins.hydra_ray_launcher")
LAUNCHERS = {
    "joblib": ("hydra/launcher=joblib", "hydra.launcher.n_jobs=2"),  # one process would be the worker's own
    "submitit_local": ("hydra/launcher=submitit_local",),
    "ray": (
        "hydra/launcher=ray",
        "+hydra.launcher.ray.init.num_cpus=1",
        "+hydra.launcher.ray.init.include_dashboard=false",
    ),
}  # fmt: skip


def python_path():
    """Where other processes find the stand-ins."""
    return os.pathsep.join(filter(None, (TESTS, os.environ.get("PYTHONPATH"))))


def command(where, stand_in, *words):
    """A sweep in a process of its own, with a stand-in for the pipeline."""
    call = f"main({[*WORDS, *words]}, launched.{stand_in})"
    code = f"import sys, launched; from bigopt.cli.main import main; sys.exit({call})"
    env = {**os.environ, "PYTHONPATH": python_path(), "HYDRA_FULL_ERROR": "0"}
    return subprocess.Popen(
        [sys.executable, "-c", code], cwd=where, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def finished(process, timeout=120):
    out, err = process.communicate(timeout=timeout)
    assert process.returncode == 0, err
    return out, err


def table(where):
    (folder,) = (where / "multirun").iterdir()
    return folder, list(csv.DictReader((folder / "trials.csv").open()))


def states(where):
    folder, rows = table(where)
    epochs = {row["number"]: (folder / row["number"] / "epochs").read_text().split() for row in rows}
    return sorted((row["state"], int(row["epochs"]), len(epochs[row["number"]])) for row in rows), epochs


def test_hyperband_through_joblib_where_one_job_is_killed(tmp_path):
    """Trials pause and go on in other processes; what died is tried again and counts once."""
    process = command(tmp_path, "dying", *HYPERBAND, *LAUNCHERS["joblib"])
    _, err = finished(process)
    found, epochs = states(tmp_path)
    assert found == [("complete", 3, 3)] * 3 + [("pruned", 1, 1)] * 2
    assert str(process.pid) not in {pid for each in epochs.values() for pid in each}
    folder, rows = table(tmp_path)
    assert (folder / "1" / "killed").exists()
    assert "Traceback" not in err, err  # joblib may tell of what the killed process could not give back


@pytest.mark.parametrize(
    "name",
    [
        "submitit_local",
        pytest.param("ray", marks=pytest.mark.skipif(not RAY, reason="needs bigopt[ray], which pins older packages")),
    ],
)
def test_trials_are_stopped_early_in_other_processes(tmp_path, name):
    words = ("optimizer.lr=0.1,0.9", "tuner=grid", "tuner.pruner=median", "tuner.pruner_startup=1")
    process = command(tmp_path, "curves", *words, *LAUNCHERS[name])
    _, err = finished(process)
    found, epochs = states(tmp_path)
    assert found == [("complete", 3, 3), ("pruned", 1, 1)]
    pids = {pid for each in epochs.values() for pid in each}
    assert str(process.pid) not in pids and (name == "ray" or len(pids) == 2)
    assert "Traceback" not in err and "Submitit" not in err, err


@pytest.mark.skipif(not RAY, reason="needs bigopt[ray], which pins older packages")
def test_two_nodes_of_a_ray_cluster_share_a_sweep(tmp_path, monkeypatch):
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("PYTHONPATH", python_path())
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    try:
        cluster.add_node(num_cpus=1)
        words = ("tuner=grid", "optimizer.lr=0.1,0.9", "hydra.sweeper.n_jobs=2", "hydra/launcher=ray")
        memory = "+hydra.launcher.ray.init.object_store_memory=null"  # else the launcher sets it, and Ray refuses
        join = (f"hydra.launcher.ray.init.address={cluster.address}", memory)
        finished(command(tmp_path, "meeting", *words, *join))
    finally:
        cluster.shutdown()
    found, _ = states(tmp_path)
    assert found == [("complete", 3, 3)] * 2
    assert len({file.read_text() for file in tmp_path.glob("multirun/*/*/node")}) == 2


def test_a_job_whose_sweep_is_killed_writes_its_checkpoint(tmp_path):
    process = command(tmp_path, "waiting", *RANDOM, *LAUNCHERS["joblib"])
    deadline = time.monotonic() + 100
    while not (marks := list(tmp_path.glob("multirun/*/0/waiting"))):
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.05)
    process.kill()
    process.communicate()
    checkpoint = marks[0].with_name("checkpoint")
    while not checkpoint.exists() or not checkpoint.read_text():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert checkpoint.read_text() == str(int(signal.SIGTERM))


def test_a_worker_hands_sigterm_on_and_takes_its_word_back(tmp_path):
    before = signal.getsignal(signal.SIGTERM)
    with away.telling(tmp_path) as asked:
        assert not asked
        os.kill(os.getpid(), signal.SIGTERM)
        file = away.stop_file(tmp_path, me())
        assert asked and file.exists()
    assert not file.exists() and signal.getsignal(signal.SIGTERM) == before


def test_a_job_hears_its_worker_and_notices_its_death(tmp_path, monkeypatch):
    received = []
    before = signal.signal(signal.SIGTERM, lambda number, _frame: received.append(number))
    monkeypatch.setattr(away, "LOOK", 0.01)
    try:
        other = subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE)
        mine = me()
        started = int(Path(f"/proc/{other.pid}/stat").read_text().rpartition(")")[2].split()[19])
        worker = Owner(mine.host, mine.boot, other.pid, started)
        monkeypatch.setenv(WORKER, str(worker))
        for end in (lambda: away.stop_file(tmp_path, worker).touch(), other.kill):
            away.stop_file(tmp_path, worker).parent.mkdir(exist_ok=True)
            away.stop_file(tmp_path, worker).unlink(missing_ok=True)
            received.clear()
            with away.listening(tmp_path):
                time.sleep(0.05)
                assert not received
                end()
                deadline = time.monotonic() + 10
                while not received and time.monotonic() < deadline:
                    time.sleep(0.01)
            assert received == [signal.SIGTERM]
        monkeypatch.setenv(WORKER, str(mine))  # a launcher that runs jobs in the worker itself
        with away.listening(tmp_path):
            away.stop_file(tmp_path, mine).touch()
            time.sleep(0.05)
        assert received == [signal.SIGTERM]
        other.communicate()
    finally:
        signal.signal(signal.SIGTERM, before)


def test_a_launcher_that_is_not_installed_is_named_with_its_extra():
    error = ConfigCompositionException("Could not find 'hydra/launcher/submitit_local'\nAvailable options: basic")
    assert one_line(error).endswith("Available options: basic (pip install bigopt[launchers])")
