"""One fit: what it returns, which weights it leaves, what it tells, and that it repeats."""

from __future__ import annotations

import math
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from train_fakes import Memory, data, linear, make_run, mlp, same, weights

from bigopt.train import Fitter, Signals, evaluate, predict, seed_all
from bigopt.vocabulary.data import Data, Schema, TensorSplit
from bigopt.vocabulary.errors import Pruned, RequestError
from bigopt.vocabulary.objective import Monitor
from bigopt.vocabulary.settings import Optimizer


def test_the_history_and_the_best_weights(tmp_path: Path) -> None:
    run = make_run(tmp_path, optimizer=Optimizer(lr=0.05), max_epochs=6, monitor=Monitor("val/loss", "min"))
    history = Fitter(tmp_path)(run, name="baseline")
    assert [row["epoch"] for row in history.epochs] == [1, 2, 3, 4, 5, 6]
    assert {"train/loss", "train/task", "val/accuracy", "val/loss", "val/macro_f1", "lr", "seconds"} < set(
        history.epochs[0]
    )
    losses = [row["val/loss"] for row in history.epochs]
    assert history.best_epoch == 1 + losses.index(min(losses))
    assert evaluate(run, run.data.val)["loss"] == pytest.approx(min(losses), abs=1e-7)
    assert run.history == [history] and history.name == "baseline"
    assert history.seconds > 0 and not history.cached
    assert all(parameter.grad is None for parameter in run.model.parameters())


def test_learning_learns(tmp_path: Path) -> None:
    run = make_run(tmp_path, mlp(dropout=0.0), data(train=256, val=64), optimizer=Optimizer(lr=0.05), max_epochs=8)
    history = Fitter(tmp_path)(run)
    assert history.epochs[history.best_epoch - 1]["val/accuracy"] >= 0.9


def test_zero_epochs_change_nothing_and_negative_ones_are_refused(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    before, fit = weights(run.model), Fitter(tmp_path)
    assert fit(run, 0).epochs == []
    assert same(weights(run.model), before)
    with pytest.raises(RequestError, match="got -1, expected 0 or more"):
        fit(run, -1)


def test_regression(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(64, 5, generator=generator)
    y = x @ torch.randn(5, 2, generator=generator)
    split = TensorSplit(x, y)
    dataset = Data("r", Schema("regression", "tabular", (5,), 2), split, split, None, fingerprint="0" * 64)
    run = make_run(
        tmp_path,
        nn.Linear(5, 2),
        dataset,
        optimizer=Optimizer(lr=0.1),
        monitor=Monitor("val/loss", "min"),
        max_epochs=12,
    )
    history = Fitter(tmp_path)(run)
    assert history.epochs[-1]["val/r2"] > 0.95


def test_early_stopping_counts_epochs_without_improvement(tmp_path: Path) -> None:
    run = make_run(tmp_path, linear(), optimizer=Optimizer("sgd", lr=0.0), max_epochs=20, early_stopping=3)
    history = Fitter(tmp_path)(run)
    assert history.best_epoch == 1 and len(history.epochs) == 4
    assert "stopped after epoch 4: no improvement in 3 epochs" in history.notes


def test_a_monitor_that_is_never_a_number_keeps_the_last_epoch(tmp_path: Path) -> None:
    from bigopt.vocabulary.batch import Batch, Output
    from bigopt.vocabulary.part import Part
    from bigopt.vocabulary.run import Run

    class Nothing(Part):
        def callbacks(self, run: Run) -> list[object]:
            from pytorch_lightning.callbacks import Callback

            class Log(Callback):
                def on_train_epoch_end(self, trainer: object, pl_module: object) -> None:
                    pl_module.log("own", math.nan)  # type: ignore[attr-defined]

            return [Log()]

        def loss(self, run: Run, batch: Batch, output: Output) -> dict[str, torch.Tensor]:
            return {}

    run = make_run(tmp_path, parts=[Nothing()], monitor=Monitor("own", "max"), max_epochs=3)
    history = Fitter(tmp_path)(run)
    assert history.best_epoch == 3
    again = make_run(tmp_path, parts=[Nothing()], monitor=Monitor("own", "max"), max_epochs=3)
    known = Fitter(tmp_path)(again)
    assert math.isnan(known.epochs[0]["own"])


def test_what_happened_before_a_fit_does_not_matter(tmp_path: Path) -> None:
    results = []
    for number in range(2):
        torch.manual_seed(number)
        random.seed(number)
        np.random.seed(number)
        run = make_run(tmp_path / str(number))
        Fitter(run.folder)(run)
        results.append((weights(run.model), torch.rand(3), random.random(), np.random.rand()))
    assert same(results[0][0], results[1][0])
    assert torch.equal(results[0][1], results[1][1]) and results[0][2:] == results[1][2:]


def test_seeds_differ_by_run_and_ordinal() -> None:
    seeds = {seed_all(seed, ordinal) for seed in range(3) for ordinal in range(3)}
    assert len(seeds) == 9
    assert seed_all(0, 1) == seed_all(0, 1)
    first = torch.rand(2)
    seed_all(0, 1)
    assert torch.equal(torch.rand(2), first)


def test_progress_counts_epochs_over_the_run_and_forks_are_silent(tmp_path: Path) -> None:
    run, fit = make_run(tmp_path), Fitter(tmp_path)
    fit(run, 2, name="baseline")
    fit(run.fork(), 3, name="trial")
    fit(run, 1, name="recover")
    progress = run.progress
    assert isinstance(progress, Memory)
    assert [entry[:2] for entry in progress.epochs] == [("baseline", 1), ("baseline", 2), ("recover", 3)]
    assert progress.epochs[0][2]["val/accuracy"] == run.history[0].epochs[0]["val/accuracy"]
    assert progress.steps == progress.total == 6 * 4 and progress.open == 0
    assert [history.name for history in run.history] == ["baseline", "recover"]


def test_pruned_propagates_as_it_is(tmp_path: Path) -> None:
    run = make_run(tmp_path, max_epochs=5)
    answer = Pruned("epoch 2 is hopeless")
    run.progress.raise_at = (2, answer)  # type: ignore[attr-defined]
    with pytest.raises(Pruned) as caught:
        Fitter(tmp_path)(run)
    assert caught.value is answer
    assert run.progress.open == 0  # type: ignore[attr-defined]


def test_one_row_left_over_does_not_break_batch_norm(tmp_path: Path) -> None:
    run = make_run(tmp_path, dataset=data(train=33))
    assert len(Fitter(tmp_path)(run).epochs) == 2


def test_threads_and_determinism_hold_during_the_fit_only(tmp_path: Path) -> None:
    from bigopt.vocabulary.batch import Batch
    from bigopt.vocabulary.part import Part
    from bigopt.vocabulary.run import Run

    seen = set()

    class Look(Part):
        def batch(self, run: Run, batch: Batch) -> Batch:
            seen.add((torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()))
            return batch

    before = torch.get_num_threads()
    run = make_run(tmp_path, parts=[Look()], threads=before + 1, deterministic=True)
    Fitter(tmp_path)(run)
    assert seen == {(before + 1, True)}
    assert torch.get_num_threads() == before and not torch.are_deterministic_algorithms_enabled()


def test_predict_restores_modes_and_keeps_the_order() -> None:
    model = mlp().train()
    model[1].eval()
    split = data().val
    logits = predict(model, split, batch_size=7)
    assert model.training and not model[1].training and model[3].training
    with torch.no_grad():
        expected = model.eval()(split.take(torch.arange(len(split))))
    assert torch.allclose(logits, expected, atol=1e-6) and not logits.requires_grad
    (logits * torch.ones(1, requires_grad=True)).sum().backward()  # may be a constant in a loss


def test_predict_refuses_an_empty_split() -> None:
    with pytest.raises(RequestError, match="empty"):
        predict(linear(), TensorSplit(torch.zeros(0, 5), torch.zeros(0, dtype=torch.int64)))


def test_importing_the_package_does_not_import_lightning() -> None:
    program = "import sys, bigopt.train; sys.exit('pytorch_lightning' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], timeout=100).returncode == 0


def test_an_empty_training_split_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="the training split is empty"):
        Fitter(tmp_path)(make_run(tmp_path, dataset=data(train=0)))


def test_lightning_says_nothing(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    Fitter(tmp_path, signals=Signals())(make_run(tmp_path))
    out, err = capfd.readouterr()
    assert out == "" and err == ""
