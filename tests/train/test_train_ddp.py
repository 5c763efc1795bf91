"""Two processes on the CPU do what one does, and fail as one."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
import train_rank
from train_fakes import same, weights

from bigopt.train.ddp import agree, broadcast_object, launch, rank, world_size
from bigopt.vocabulary.errors import Interrupted, RunFailed

SCRIPT = str(Path(__file__).with_name("train_rank.py"))


def command(mode: str, folder: Path) -> list[str]:
    return [sys.executable, SCRIPT, mode, str(folder)]


@pytest.fixture(autouse=True)
def one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


def test_two_ranks_train_like_one_and_resume(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    alone, history = train_rank.train(tmp_path / "alone")
    with launch(command("train", tmp_path), 2):
        assert (rank(), world_size()) == (0, 2)
        run, shared = train_rank.train(tmp_path, devices=2)
        whole, resumed = train_rank.interrupted(tmp_path)
        broadcast_object(None)
    assert (rank(), world_size()) == (0, 1)
    assert not torch.distributed.is_initialized()
    out, err = capfd.readouterr()
    advice = [line for line in err.splitlines() if "reducer.cpp" not in line]  # torch's: it was imported before
    assert out == "" and advice == []
    assert same(weights(whole.model), weights(resumed.model))
    assert len(resumed.progress.epochs) == 1  # type: ignore[attr-defined]
    other = torch.load(tmp_path / "rank1.pt")
    for name, value in alone.model.state_dict().items():
        assert torch.allclose(value, run.model.state_dict()[name], atol=1e-5), name
        assert torch.equal(other["weights"][name], run.model.state_dict()[name]), name
    assert [row["val/loss"] for row in shared.epochs] == pytest.approx(
        [r["val/loss"] for r in history.epochs], abs=1e-5
    )
    assert [row["val/loss"] for row in other["epochs"]] == [row["val/loss"] for row in shared.epochs]
    # each rank's 30 rows in batches of 8 are one process's 60 rows in batches of 16
    assert [row["train/loss"] for row in shared.epochs] == pytest.approx(
        [row["train/loss"] for row in history.epochs], abs=1e-5
    )


def test_a_rank_that_never_joins_fails_the_run(tmp_path: Path) -> None:
    with pytest.raises(RunFailed, match=r"rank 1 ended with code 3.*the disk is on fire"):
        with launch(command("dies", tmp_path), 2):
            agree(0)


def test_a_rank_that_dies_later_fails_the_run(tmp_path: Path) -> None:
    with pytest.raises(RunFailed, match="rank 1 ended with code 4"):
        with launch(command("dies late", tmp_path), 2):
            broadcast_object(None)
            agree(0)  # the other one is gone by now


def test_an_error_of_rank_0_ends_the_others(tmp_path: Path) -> None:
    with pytest.raises(Interrupted):
        with launch([sys.executable, "-c", "import time; time.sleep(600)"], 2):
            raise Interrupted(15)
