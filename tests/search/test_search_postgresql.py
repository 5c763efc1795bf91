"""Eight workers on one PostgreSQL study: every configuration once, nothing lost, changes refused as elsewhere."""

import os
import shutil
import socket
import subprocess
import tempfile
from pathlib import Path

import pytest
from search_fakes import dying, marking, plan, run, states, tuner

from bigopt.search.study import load

HOMES = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True) if Path("/usr/lib/postgresql").exists() else []
BINARIES = str(HOMES[0]) if HOMES else None


def as_postgres(*words):
    """The server refuses to run as root."""
    if os.getuid() != 0:
        return list(words)
    return ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups", *words]


@pytest.fixture(scope="module")
def server():
    """A server of Debian's package on a free port, gone afterwards; yields its address."""
    assert BINARIES is not None
    folder = Path(tempfile.mkdtemp(prefix="bigopt-postgresql-"))
    if os.getuid() == 0:
        shutil.chown(folder, "postgres", "postgres")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    data, log = folder / "data", folder / "log"
    start = f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories='' -c fsync=off -c max_connections=60"
    subprocess.run(
        as_postgres(f"{BINARIES}/initdb", "-D", str(data), "-A", "trust", "-U", "bigopt", "--no-sync"),
        check=True, capture_output=True, cwd="/",
    )  # fmt: skip
    control = as_postgres(f"{BINARIES}/pg_ctl", "-D", str(data), "-l", str(log), "-w")
    subprocess.run([*control, "-o", start, "start"], check=True, capture_output=True, cwd="/")
    try:
        yield f"postgresql://bigopt@127.0.0.1:{port}/postgres"
    finally:
        subprocess.run([*control, "-m", "immediate", "stop"], check=True, capture_output=True, cwd="/")
        shutil.rmtree(folder)


if BINARIES is not None:  # where the package cannot be installed there is nothing to test; CI installs it

    def test_eight_workers_share_a_study(server, tmp_path):
        made = plan(tmp_path, 40, workers=8, storage=server, tuner=tuner("random"))
        found = run(made, marking(tmp_path, 0.01))
        assert found.code == 0 and states(found) == ["complete"] * 40
        lines = (tmp_path / "ended").read_text().splitlines()
        assert sorted(int(line.split()[0]) for line in lines) == [each.number for each in found.known]
        assert len({line.split()[1] for line in lines}) == 8
        assert len({tuple(each.last.params.values()) for each in found.known}) == 40

    def test_a_killed_worker_loses_nothing(server, tmp_path):
        made = plan(tmp_path, 12, workers=4, storage=server, study="killed", tuner=tuner("random"))
        found = run(made, dying(tmp_path, lambda number: number % 5 == 0))
        assert states(found) == ["complete"] * 12
        trials = load(made.storage, "killed").get_trials()
        assert sum(trial.state.name == "COMPLETE" for trial in trials) == 12
        killed = len(list(tmp_path.glob("dead-*")))
        assert sum(trial.state.name == "FAIL" for trial in trials) == killed > 0
