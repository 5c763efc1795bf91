"""Optuna's gRPC proxy as storage: two commands join one study, whatever the proxy itself writes to."""

import os
import socket
import subprocess
import sys

import pytest
from search_fakes import dying, plan, run, states, tuner

from bigopt.search.storage import Storage
from bigopt.search.study import load
from bigopt.vocabulary.errors import RequestError

SERVER = """
import sys
from optuna.storages import JournalStorage, run_grpc_proxy_server
from optuna.storages.journal import JournalFileBackend
run_grpc_proxy_server(JournalStorage(JournalFileBackend(sys.argv[1])), host="localhost", port=int(sys.argv[2]))
"""
JOINING = """
import sys
from pathlib import Path
from search_fakes import marking, plan, run, tuner
folder = Path(sys.argv[1])
made = plan(folder, 16, workers=1, storage=sys.argv[2], tuner=tuner("random"))
raise SystemExit(run(made, marking(folder, 0.05)).code)
"""


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """Optuna's own server over a journal; yields its address."""
    port, file = free_port(), tmp_path_factory.mktemp("grpc") / "journal"
    process = subprocess.Popen([sys.executable, "-W", "ignore", "-c", SERVER, str(file), str(port)])
    yield f"grpc://localhost:{port}"
    process.terminate()
    process.wait()


def test_two_commands_join_one_study(server, tmp_path):
    env = {**os.environ, "PYTHONPATH": os.path.dirname(__file__)}
    Storage.of(server, tmp_path).open()  # waits for the server
    words = [sys.executable, "-c", JOINING, str(tmp_path), server]
    commands = [subprocess.Popen(words, env=env, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    ends = [(command.communicate(timeout=120)[1], command.returncode) for command in commands]
    assert [code for _, code in ends] == [0, 0], ends
    trials = load(Storage.of(server, tmp_path), "study").get_trials()
    assert sorted(trial.number for trial in trials if trial.state.name == "COMPLETE") == list(range(16))
    lines = (tmp_path / "ended").read_text().splitlines()
    assert sorted(int(line.split()[0]) for line in lines) == list(range(16))
    assert len({line.split()[1] for line in lines}) == 2
    assert len({tuple(trial.params.values()) for trial in trials}) == 16


def test_a_killed_worker_loses_nothing_through_the_proxy(server, tmp_path):
    made = plan(tmp_path, 6, workers=2, storage=server, study="killed", tuner=tuner("random"))
    assert states(run(made, dying(tmp_path, lambda number: number == 2))) == ["complete"] * 6


def test_what_is_no_proxy_gets_one_line(tmp_path, monkeypatch):
    with pytest.raises(RequestError, match="grpc://HOST:PORT"):
        Storage.of("grpc://localhost", tmp_path)
    monkeypatch.setattr("bigopt.search.storage.REACHABLE", 0.2)
    with pytest.raises(RequestError, match="cannot be used"):
        Storage.of(f"grpc://localhost:{free_port()}", tmp_path).open()
