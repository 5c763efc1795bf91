"""Stopped at any step and started again, a fit equals the uninterrupted one bit for bit."""

from __future__ import annotations

import logging
import os
import random
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import train_killed
from torch import Tensor, nn
from train_fakes import CLASSES, FEATURES, Memory, cnn, data, make_run, mlp, same, weights

from bigopt.store import Generations
from bigopt.train import Fitter, Signals
from bigopt.vocabulary.batch import Batch, Output
from bigopt.vocabulary.errors import Interrupted, RunFailed
from bigopt.vocabulary.part import Part
from bigopt.vocabulary.run import History, Run
from bigopt.vocabulary.settings import Optimizer, Scheduler


class StopAfter(Signals):
    """As if SIGTERM came during the ``n``-th optimizer step."""

    def __init__(self, n: int) -> None:
        self.left = n
        super().__init__()

    @property
    def received(self) -> int | None:  # type: ignore[override]
        self.left -= 1
        return signal.SIGTERM if self.left < 0 else None

    @received.setter
    def received(self, value: int | None) -> None:
        assert value is None


class Noise(Part):
    """Draws from every generator there is."""

    def batch(self, run: Run, batch: Batch) -> Batch:
        noise = torch.randn_like(batch.x) + random.random() + np.random.rand()
        return batch.with_(x=batch.x + 0.1 * noise)


class Discriminator(Part):
    """An auxiliary net that is trained along."""

    def __init__(self) -> None:
        torch.manual_seed(5)
        self.net = nn.Linear(FEATURES, CLASSES)

    def modules(self, run: Run) -> dict[str, nn.Module]:
        return {"net": self.net}

    def loss(self, run: Run, batch: Batch, output: Output) -> dict[str, Tensor]:
        return {"other": run.task.loss(self.net(batch.x), batch.y)}


class Gradual(Part):
    """Unfreezes in the second epoch with a group of its own, and counts batches in a callback's state."""

    def prepare(self, run: Run, fit: Any) -> None:
        run.model[0].requires_grad_(False)
        run.model[1].requires_grad_(False)

    def callbacks(self, run: Run) -> list[Any]:
        from pytorch_lightning.callbacks import Callback

        class Count(Callback):
            def __init__(self) -> None:
                self.count = 0

            def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
                if trainer.current_epoch == 1:
                    body = [*run.model[0].parameters(), *run.model[1].parameters()]
                    for parameter in body:
                        parameter.requires_grad_(True)
                    trainer.optimizers[0].add_param_group({"params": body, "lr": 0.02})

            def on_train_batch_end(self, trainer: Any, pl_module: Any, *_: Any) -> None:
                self.count += 1
                pl_module.log("own/count", float(self.count))

            def state_dict(self) -> dict[str, Any]:
                return {"count": self.count}

            def load_state_dict(self, state: dict[str, Any]) -> None:
                self.count = state["count"]

        return [Count()]


SETTINGS: dict[str, dict[str, Any]] = {
    "adamw": {"ema": 0.9, "early_stopping": 2, "parts": (Noise, Discriminator)},
    "accumulate": {"accumulate": 2, "optimizer": Optimizer("sgd", lr=0.1), "scheduler": Scheduler("one_cycle")},
    "plateau": {"scheduler": Scheduler("plateau", patience=0), "optimizer": Optimizer("radam", lr=0.03)},
    "unfreezing": {"parts": (Gradual,), "ema": 0.5},
    "channels last": {"images": True, "gradient_clip": 0.3},
}


def build(folder: Path, case: str) -> Run:
    settings = {"max_epochs": 3} | SETTINGS[case]
    images = settings.pop("images", False)
    parts = [kind() for kind in settings.pop("parts", ())]
    run = make_run(folder, cnn() if images else mlp(), data(image=images), parts, **settings)
    for part in parts:
        part.prepare(run, None)
    return run


def outcome(run: Run, history: History) -> tuple[Any, ...]:
    """All that must agree; times cannot."""
    rows = [{name: value for name, value in row.items() if name != "seconds"} for row in history.epochs]
    nets = [run.model, *(module for part in run.parts for module in part.modules(run).values())]
    return rows, history.best_epoch, history.notes, [weights(net) for net in nets], torch.rand(2)


def agree(a: tuple[Any, ...], b: tuple[Any, ...]) -> bool:
    return a[:3] == b[:3] and all(same(x, y) for x, y in zip(a[3], b[3], strict=True)) and torch.equal(a[4], b[4])


def stop_and_resume(folder: Path, case: str, *moments: int) -> tuple[Any, ...]:
    for moment in moments:
        with pytest.raises(Interrupted) as stopped:
            Fitter(folder, signals=StopAfter(moment))(build(folder, case))
        assert stopped.value.exit_code == 143
    run = build(folder, case)
    return outcome(run, Fitter(folder)(run))


@pytest.mark.parametrize("case", SETTINGS)
def test_resumed_equals_uninterrupted(case: str, tmp_path: Path) -> None:
    run = build(tmp_path, case)
    expected = outcome(run, Fitter(tmp_path)(run))
    steps = 6 if case == "accumulate" else 12
    for moment in range(0, steps, 2 if case == "adamw" else 3):
        assert agree(stop_and_resume(tmp_path / str(moment), case, moment), expected), moment
    assert agree(stop_and_resume(tmp_path / "twice", case, 1, 0, 2), expected)


def test_a_real_signal_during_a_step(tmp_path: Path) -> None:
    class Term(Part):
        def batch(self, run: Run, batch: Batch) -> Batch:
            if not done and int(batch.index[0]) >= 0 and len(seen) == 5:
                done.append(True)
                os.kill(os.getpid(), signal.SIGTERM)
            seen.append(1)
            return batch

    seen: list[int] = [0] * 100
    done: list[bool] = []
    run = make_run(tmp_path / "a", parts=[Term()])
    expected = outcome(run, Fitter(run.folder)(run))
    seen.clear()
    with Signals() as signals, pytest.raises(Interrupted) as stopped:
        run = make_run(tmp_path / "b", parts=[Term()])
        Fitter(run.folder, signals=signals)(run)
    assert stopped.value.signum == signal.SIGTERM and len(seen) == 6
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    run = make_run(tmp_path / "b", parts=[Term()])
    assert agree(outcome(run, Fitter(run.folder)(run)), expected)


def test_killed_in_the_middle_of_a_step(tmp_path: Path) -> None:
    run = train_killed.make(tmp_path / "a")
    expected = outcome(run, Fitter(run.folder)(run, name="killed"))
    folder = tmp_path / "b"
    # imported, not run as a script: a Part's class is part of the fit's key
    program = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); import train_killed as t; t.main()"
    environment = {**os.environ, "DIE_AT": "6", "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", program, str(folder)], env=environment, timeout=120)
    assert done.returncode == -signal.SIGKILL
    run = train_killed.make(folder)
    history = Fitter(folder)(run, name="killed")
    assert agree(outcome(run, history), expected)
    # the first epoch and half of the second were not done again
    assert [entry[:2] for entry in run.progress.epochs] == [("killed", 2), ("killed", 3)]  # type: ignore[attr-defined]


def test_finished_fits_are_loaded_and_the_unfinished_one_goes_on(tmp_path: Path) -> None:
    def pipeline(run: Run, fit: Fitter) -> None:
        fit(run, 2, name="baseline")
        run.model = nn.Sequential(run.model, nn.Linear(CLASSES, CLASSES))  # draws from the generator
        fit(run, 2, name="recover")

    run = make_run(tmp_path / "a")
    pipeline(run, Fitter(run.folder))
    again = make_run(tmp_path / "b")
    with pytest.raises(Interrupted):
        pipeline(again, Fitter(again.folder, signals=StopAfter(14)))
    again = make_run(tmp_path / "b")
    pipeline(again, Fitter(again.folder))
    assert same(weights(run.model), weights(again.model))
    assert [entry[:2] for entry in again.progress.epochs] == [("recover", 4)]  # type: ignore[attr-defined]
    assert [h.name for h in again.history] == ["baseline", "recover"]
    assert not (tmp_path / "b" / "fits" / "000-baseline" / "checkpoints").exists()


def test_an_interruption_after_the_last_step_loses_nothing(tmp_path: Path) -> None:
    class Late(Memory):
        def epoch(self, stage: str, epoch: int, values: Any) -> None:
            super().epoch(stage, epoch, values)
            if epoch == 2:
                signals.request(signal.SIGINT)

    run, signals = make_run(tmp_path), Signals()
    run.progress = Late()
    with pytest.raises(Interrupted) as stopped:
        Fitter(tmp_path, signals=signals)(run)
    assert stopped.value.exit_code == 130
    run = make_run(tmp_path)
    assert len(Fitter(tmp_path)(run).epochs) == 2
    assert run.progress.epochs == []  # type: ignore[attr-defined]


def test_another_configuration_does_not_take_the_old_result(tmp_path: Path) -> None:
    Fitter(tmp_path)(make_run(tmp_path))
    run = make_run(tmp_path, optimizer=Optimizer(lr=0.5))
    Fitter(tmp_path)(run)
    assert len(run.progress.epochs) == 2  # type: ignore[attr-defined]


def test_a_damaged_checkpoint_gives_way_to_the_one_before(tmp_path: Path) -> None:
    run = make_run(tmp_path / "a")
    expected = outcome(run, Fitter(run.folder)(run))
    folder = tmp_path / "b"
    for moment in (2, 2):
        with pytest.raises(Interrupted):
            Fitter(folder, signals=StopAfter(moment))(make_run(folder))
    checkpoints = Generations(folder / "fits" / "000-fit" / "checkpoints")
    newest = checkpoints.newest()
    assert newest is not None
    file = newest / "state.safetensors"
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    run = make_run(folder)
    assert agree(outcome(run, Fitter(folder)(run)), expected)


def test_a_full_disk_at_a_checkpoint_is_said_once_and_training_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(self: Generations, fill: Any) -> Path:
        if self.folder.name == "checkpoints":
            raise OSError(28, "No space left on device")
        return real(self, fill)

    real = Generations.save
    monkeypatch.setattr(Generations, "save", full)
    with caplog.at_level(logging.WARNING):
        history = Fitter(tmp_path)(make_run(tmp_path, checkpoint_seconds=0.0))
    said = [record.message for record in caplog.records if "No space left" in record.message]
    assert len(said) == 1 and "the last good checkpoint is kept" in said[0]
    assert len(history.epochs) == 2
    assert sum("No space left" in note for note in history.notes) == 1


def test_a_full_disk_at_the_result_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Generations, fill: Any) -> Path:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Generations, "save", full)
    with pytest.raises(RunFailed, match="the result could not be written.*No space left"):
        Fitter(tmp_path)(make_run(tmp_path))


def test_periodic_checkpoints(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved = []
    real = Generations.save

    def count(self: Generations, fill: Any) -> Path:
        saved.append(self.folder.name)
        return real(self, fill)

    monkeypatch.setattr(Generations, "save", count)
    Fitter(tmp_path / "a")(make_run(tmp_path / "a", checkpoint_seconds=0.0))
    assert saved == ["checkpoints"] * 7 + ["result"]  # after each of 8 steps but the last
    saved.clear()
    Fitter(tmp_path / "b")(make_run(tmp_path / "b"))
    assert saved == ["result"]
