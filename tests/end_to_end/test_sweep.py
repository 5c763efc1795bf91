"""A search of the real thing: trials that report and stop, a winner on fresh seeds, runs in tracking."""

import csv
import json
import sqlite3

import pytest
from end_to_end.conftest import bigopt

SWEEP = [
    "tuner=hyperband",
    "dataset=digits",
    "model=mlp",
    "model.hidden=[32]",
    "optimizer.lr=tag(log,interval(1e-4,1e-1))",
    "trainer.max_epochs=3",
    "trainer.precision=fp32",
    "measure=quick",
    "hydra.sweeper.n_jobs=2",
    "hydra.sweeper.confirm=2",
]


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    where = tmp_path_factory.mktemp("sweep")
    done = bigopt(where, *SWEEP)
    assert done.returncode == 0, done.stderr
    (folder,) = (where / "multirun").iterdir()
    return where, folder, done


def test_hyperband_trains_what_the_algorithm_says(swept):
    """R = 3, η = 3: bracket 1 starts 3 configurations at 1 epoch and lets one go on to 3; bracket 0 starts 2 at 3."""
    _, folder, _ = swept
    header = (folder / "trials.csv").read_text().partition("\n")[0].split(",")
    assert len(header) == len(set(header))
    rows = list(csv.DictReader((folder / "trials.csv").open()))
    assert sorted((row["state"], int(row["epochs"])) for row in rows) == [
        ("complete", 3), ("complete", 3), ("complete", 3), ("pruned", 1), ("pruned", 1)
    ]  # fmt: skip
    promoted = next(n for n in (0, 1, 2) if rows[n]["state"] == "complete")
    assert float(rows[promoted]["val/accuracy"]) > 0.3
    fit = json.loads((folder / str(promoted) / "report.json").read_text())["stages"][0]["history"][0]
    assert [epoch["epoch"] for epoch in fit["epochs"]] == [1, 2, 3]


def test_the_winner_is_trained_again_and_tested_once(swept):
    _, folder, done = swept
    sweep = json.loads((folder / "sweep.json").read_text())
    assert sweep["status"] == "finished" and sweep["counts"] == {"complete": 3, "pruned": 2}
    confirmed = sweep["confirmed"]
    assert confirmed["seeds"] == [1, 2] and all(value > 0.5 for value in confirmed["values"])
    reports = [json.loads(path.read_text()) for path in sorted(folder.glob("best/*/report.json"))]
    assert sum(report["test"] is not None for report in reports) == 1
    assert confirmed["test"]["test_reads"] == 1
    trials = [json.loads(path.read_text()) for path in folder.glob("[0-9]*/report.json")]
    assert all(report["test"] is None for report in trials)
    assert (folder / "plots.html").exists() and (folder / "plots" / "history.png").exists()
    assert f"best: trial {sweep['best']['number']}" in done.stdout


def test_the_sweep_and_its_trials_are_in_tracking_with_the_right_status(swept):
    where, _, _ = swept
    with sqlite3.connect(where / "mlflow.db") as database:
        runs = dict(database.execute("SELECT run_uuid, status FROM runs"))
        parents = dict(database.execute("SELECT run_uuid, value FROM tags WHERE key = 'mlflow.parentRunId'"))
        names = dict(database.execute("SELECT run_uuid, name FROM runs"))
    (parent,) = set(parents.values())
    assert runs[parent] == "FINISHED" and parent not in parents
    children = {names[run]: runs[run] for run in parents}
    assert len(children) == 7  # five configurations, two fresh seeds
    assert sorted(children[str(n)] for n in range(5)) == ["FINISHED"] * 3 + ["KILLED"] * 2
