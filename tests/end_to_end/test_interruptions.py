"""Killed, interrupted and resumed runs end as an uninterrupted one would have."""

import json
import os
import signal
import subprocess
import sys

import pytest
from end_to_end import conftest
from end_to_end.conftest import bigopt, report_of, run_folder

from bigopt.store import load_tensors

SMALL = [word.replace("model=lenet5", "model=mlp") for word in conftest.SMALL]  # seconds instead of tens of them
WORDS = [
    *SMALL,
    "compression=[channel_pruning,quantization]",
    "compression.channel_pruning.recover.epochs=30",
    "cache=off",
    "tracking=none",
]


def start(where, *words):
    variables = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-m", "bigopt", *words],
        cwd=where,
        env=variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def wait_for(process, text):
    """Reads what the process prints until a line holds the text."""
    seen = []
    for line in process.stdout:
        seen.append(line)
        if text in line:
            return
    raise AssertionError("".join(seen))


def same_model(a, b):
    left, right = load_tensors(a / "model.safetensors"), load_tensors(b / "model.safetensors")
    return left.keys() == right.keys() and all((left[name] == right[name]).all() for name in left)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    where = tmp_path_factory.mktemp("uninterrupted")
    done = bigopt(where, *WORDS)
    assert done.returncode == 0, done.stderr
    return run_folder(where)


def test_stopped_twice_in_its_pruning_stage_and_resumed(uninterrupted, tmp_path):
    """SIGTERM, resumed, SIGKILL, resumed: bit for bit as without."""
    words, status = WORDS, {signal.SIGTERM: "interrupted", signal.SIGKILL: "running"}
    for sign, code in ((signal.SIGTERM, 143), (signal.SIGKILL, -9)):
        process = start(tmp_path, *words)
        wait_for(process, "channel_pruning: epoch")
        process.send_signal(sign)
        process.communicate(timeout=120)
        assert process.returncode == code
        folder = run_folder(tmp_path)
        report = json.loads((folder / "report.json").read_text())
        assert [stage["name"] for stage in report["stages"]] == ["baseline"]
        assert report["status"] == status[sign]
        words = [f"resume={folder}"]
    done = bigopt(tmp_path, *words)
    assert done.returncode == 0, done.stderr
    assert same_model(folder, uninterrupted)
    final, expected = (json.loads((path / "report.json").read_text()) for path in (folder, uninterrupted))
    assert final["status"] == "finished"
    assert "baseline: epoch" not in done.stdout + done.stderr
    assert [s["metrics"] for s in final["stages"]] == [s["metrics"] for s in expected["stages"]]
    assert (folder / "model.onnx").read_bytes() == (uninterrupted / "model.onnx").read_bytes()


def test_budgets_give_the_code_and_a_second_run_takes_the_baseline_from_the_cache(tmp_path):
    assert bigopt(tmp_path, *SMALL, "tracking=none", "budget.max_bytes=1000").returncode == 3
    first = report_of(tmp_path)
    assert first["budget"]["max_bytes"]["met"] is False
    words = [*SMALL, "tracking=none", "compression=[quantization]", "budget.max_bytes=100000000"]
    assert bigopt(tmp_path, *words).returncode == 0
    second = report_of(tmp_path)
    assert second["budget"]["met"] is True
    assert first["stages"][0]["history"][0]["cached"] is False
    assert second["stages"][0]["history"][0]["cached"] is True
    assert first["stages"][0]["metrics"] == second["stages"][0]["metrics"]


def test_a_loss_that_is_not_finite_stops_the_run_and_marks_it_failed(tmp_path):
    done = bigopt(tmp_path, *SMALL, "optimizer.lr=1e30", "optimizer=sgd")
    assert done.returncode == 1
    assert "step" in done.stderr and "Traceback" not in done.stderr
    assert report_of(tmp_path)["status"] == "failed"


def test_two_ranks_train_and_prune_as_one(tmp_path):
    """The same global batch; the pruning decision is the same on both, and rank 0 alone writes."""
    done = bigopt(tmp_path, *SMALL, "tracking=none", "cache=off", "compression=[channel_pruning]")
    assert done.returncode == 0, done.stderr
    alone = run_folder(tmp_path)
    words = [*SMALL, "tracking=none", "cache=off", "compression=[channel_pruning]", "trainer.devices=2"]
    done = bigopt(tmp_path, *words)
    assert done.returncode == 0, done.stderr
    both = run_folder(tmp_path)
    assert both != alone
    one, two = (json.loads((folder / "report.json").read_text()) for folder in (alone, both))
    assert [stage["parameters"] for stage in one["stages"]] == [stage["parameters"] for stage in two["stages"]]
    for a, b in zip(one["stages"], two["stages"], strict=True):
        assert abs(a["metrics"]["val/loss"] - b["metrics"]["val/loss"]) < 0.15
    assert len(list((both / "fits").iterdir())) == 2
