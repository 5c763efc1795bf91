"""The hooks of Parts: order, loss terms, taps, auxiliary modules, callbacks, monitors, frozen modules."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from train_fakes import CLASSES, FEATURES, Memory, cnn, data, linear, make_run, mlp, same, weights

from bigopt.train import STAY_EVAL, Fitter
from bigopt.vocabulary.batch import Batch, Output, Role
from bigopt.vocabulary.errors import RequestError, RunFailed
from bigopt.vocabulary.objective import Monitor
from bigopt.vocabulary.part import Part
from bigopt.vocabulary.run import Run
from bigopt.vocabulary.settings import Optimizer, Scheduler

SGD = Optimizer("sgd", lr=0.1, weight_decay=0.0, momentum=0.0, nesterov=False)


class Scale(Part):
    def __init__(self, by: float, plus: float) -> None:
        self.by, self.plus = by, plus

    def batch(self, run: Run, batch: Batch) -> Batch:
        return batch.with_(x=batch.x * self.by + self.plus)


class See(Part):
    def __init__(self) -> None:
        self.batches: list[Batch] = []
        self.outputs: list[Output] = []

    def batch(self, run: Run, batch: Batch) -> Batch:
        self.batches.append(batch)
        return batch

    def loss(self, run: Run, batch: Batch, output: Output) -> dict[str, Tensor]:
        self.outputs.append(output)
        return {}


class Terms(Part):
    def __init__(self, **terms: float) -> None:
        self.terms = terms

    def loss(self, run: Run, batch: Batch, output: Output) -> dict[str, Tensor]:
        return {name: output.logits.sum() * 0 + value for name, value in self.terms.items()}


def test_batch_hooks_run_in_order(tmp_path: Path) -> None:
    see = See()
    run = make_run(tmp_path, linear(), parts=[Scale(2.0, 1.0), Scale(10.0, 0.0), see], max_epochs=1)
    Fitter(tmp_path)(run)
    for batch in see.batches:
        assert torch.allclose(batch.x, (run.data.train.take(batch.index) * 2 + 1) * 10)
    visited = torch.cat([batch.index for batch in see.batches])
    assert sorted(visited.tolist()) == list(range(64))
    assert not torch.equal(visited, torch.arange(64))


def test_terms_are_summed_and_logged(tmp_path: Path) -> None:
    run = make_run(tmp_path, linear(), parts=[Terms(a=0.25, b=1.0), Terms(b=2.0)], max_epochs=1)
    row = Fitter(tmp_path)(run).epochs[0]
    assert row["train/a"] == pytest.approx(0.25)
    assert row["train/b"] == pytest.approx(3.0)
    assert row["train/loss"] == pytest.approx(row["train/task"] + 3.25, abs=1e-5)


def test_a_term_named_task_replaces_the_task_loss(tmp_path: Path) -> None:
    run = make_run(tmp_path, linear(), parts=[Terms(task=7.0)], max_epochs=1)
    start = weights(run.model)
    row = Fitter(tmp_path)(run).epochs[0]
    assert row["train/task"] == row["train/loss"] == pytest.approx(7.0)
    assert torch.allclose(run.model[0].bias, start["0.bias"])  # a constant has no gradient


def test_the_means_are_over_rows(tmp_path: Path) -> None:
    """20 rows in batches of 16 and 4; with a rate of 0 every row's loss is that of the start."""
    run = make_run(tmp_path, linear(), data(train=20), optimizer=replace(SGD, lr=0.0), max_epochs=1)
    x, y = run.data.train.take(torch.arange(20)), run.data.train.y
    row = Fitter(tmp_path)(run).epochs[0]
    assert row["train/task"] == pytest.approx(run.task.loss(linear()(x), y).item(), abs=1e-6)


def test_the_task_loss_sees_labelled_rows_only(tmp_path: Path) -> None:
    class Unlabelled(Part):
        """Adds rows whose label is a filler that cross-entropy would choke on."""

        def batch(self, run: Run, batch: Batch) -> Batch:
            n = len(batch.x)
            role = torch.tensor([int(Role.LABELLED)] * n + [int(Role.UNLABELLED)] * n)
            filler = torch.full((n,), -1)
            return Batch(torch.cat([batch.x, batch.x + 9]), torch.cat([batch.y, filler]), batch.index.repeat(2), role)

    results = []
    for parts in ([], [Unlabelled()]):
        run = make_run(tmp_path / str(len(parts)), linear(), parts=parts, optimizer=SGD)
        Fitter(run.folder)(run)
        results.append(weights(run.model))
    assert torch.allclose(results[0]["0.weight"], results[1]["0.weight"], atol=1e-6)


def test_soft_labels(tmp_path: Path) -> None:
    class Soften(Part):
        def batch(self, run: Run, batch: Batch) -> Batch:
            return batch.with_(y=nn.functional.one_hot(batch.y, CLASSES).float())

    results = []
    for parts in ([], [Soften()]):
        run = make_run(tmp_path / str(len(parts)), linear(), parts=parts)
        Fitter(run.folder)(run)
        results.append(weights(run.model))
    assert torch.allclose(results[0]["0.weight"], results[1]["0.weight"], atol=1e-6)


def test_a_batch_without_labels_needs_a_term(tmp_path: Path) -> None:
    class Hide(Part):
        def batch(self, run: Run, batch: Batch) -> Batch:
            return batch.with_(y=None)

    with pytest.raises(RequestError, match="without labelled rows"):
        Fitter(tmp_path)(make_run(tmp_path, linear(), parts=[Hide()]))
    history = Fitter(tmp_path / "b")(make_run(tmp_path, linear(), parts=[Hide(), Terms(a=1.0)], max_epochs=1))
    assert history.epochs[0]["train/loss"] == pytest.approx(1.0)
    assert "train/task" not in history.epochs[0]


def test_one_forward_pass_gives_the_union_of_taps(tmp_path: Path) -> None:
    class Tap(See):
        def __init__(self, *names: str) -> None:
            super().__init__()
            self.names = names

        def taps(self, run: Run) -> tuple[str, ...]:
            return self.names

    calls = []
    run = make_run(tmp_path, mlp(), parts=[Tap("0", "2"), Tap("2", "1")], max_epochs=1)
    handle = run.model.register_forward_hook(lambda module, *_: calls.append(module.training))
    Fitter(tmp_path)(run)
    handle.remove()
    seen = run.parts[0].outputs[0]
    assert list(seen.taps) == ["0", "1", "2"]
    assert torch.equal(seen.taps["2"], seen.taps["1"].relu())
    assert calls.count(True) == 4  # one pass a batch
    assert not run.model[0]._forward_hooks


def test_auxiliary_modules_are_trained_and_kept_with_the_best_epoch(tmp_path: Path) -> None:
    class Second(Part):
        """A second net that learns the same labels."""

        def __init__(self) -> None:
            self.net = linear(7)

        def modules(self, run: Run) -> dict[str, nn.Module]:
            return {"net": self.net}

        def loss(self, run: Run, batch: Batch, output: Output) -> dict[str, Tensor]:
            return {"second": run.task.loss(self.net(batch.x), batch.y)}

    part = Second()
    start = weights(part.net)
    run = make_run(tmp_path, parts=[part], optimizer=Optimizer(lr=0.05), max_epochs=4)
    history = Fitter(tmp_path)(run)
    assert history.epochs[-1]["train/second"] < history.epochs[0]["train/second"]
    assert not same(weights(part.net), start)
    again = Second()
    resumed = make_run(tmp_path, parts=[again], optimizer=Optimizer(lr=0.05), max_epochs=4)
    Fitter(tmp_path)(resumed)
    assert resumed.progress.epochs == []
    assert same(weights(again.net), weights(part.net))


def test_a_callbacks_value_decides_the_best_epoch(tmp_path: Path) -> None:
    from pytorch_lightning.callbacks import Callback

    class Preference(Part):
        def callbacks(self, run: Run) -> list[Any]:
            kept = self.kept = []

            class Judge(Callback):
                def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
                    assert float(trainer.callback_metrics["val/accuracy"]) >= 0
                    pl_module.log("own/score", [0.0, 5.0, 1.0][trainer.current_epoch])
                    kept.append(weights(run.model))

            return [Judge()]

    part = Preference()
    run = make_run(tmp_path, parts=[part], monitor=Monitor("own/score", "max"), max_epochs=3)
    history = Fitter(tmp_path)(run)
    assert history.best_epoch == 2
    assert [row["own/score"] for row in history.epochs] == [0.0, 5.0, 1.0]
    assert same(weights(run.model), part.kept[1])


def test_a_loss_term_may_be_the_monitor_and_an_unknown_one_is_refused(tmp_path: Path) -> None:
    run = make_run(tmp_path / "a", linear(), parts=[Terms(a=1.0)], monitor=Monitor("train/a", "min"))
    assert Fitter(run.folder)(run).best_epoch == 1
    run = make_run(tmp_path / "b", linear(), monitor=Monitor("val/accurcy", "max"))
    with pytest.raises(RequestError, match=r"'val/accurcy' is not among.*val/accuracy"):
        Fitter(run.folder)(run)


class FreezeFirst(Part):
    """Freezes the first block in ``prepare``, as fine-tuning does."""

    def prepare(self, run: Run, fit: Any) -> None:
        for index in (0, 1):
            run.model[index].requires_grad_(False)


@pytest.mark.parametrize("ema", [None, 0.9])
def test_frozen_means_bit_identical_running_statistics_included(tmp_path: Path, ema: float | None) -> None:
    run = make_run(tmp_path, cnn(), data(image=True), ema=ema, optimizer=Optimizer(lr=0.1))
    FreezeFirst().prepare(run, None)
    before = weights(run.model)
    Fitter(tmp_path)(run)
    after = weights(run.model)
    frozen = [name for name in before if name.startswith(("0.", "1."))]
    assert {name.rpartition(".")[2] for name in frozen} >= {"running_mean", "running_var", "num_batches_tracked"}
    assert same({name: before[name] for name in frozen}, {name: after[name] for name in frozen})
    assert not torch.equal(before["5.weight"], after["5.weight"])


def test_statistics_without_parameters_follow_what_is_around_them(tmp_path: Path) -> None:
    def net() -> nn.Module:
        torch.manual_seed(0)
        block = nn.Sequential(nn.Linear(FEATURES, 4), nn.BatchNorm1d(4, affine=False))
        return nn.Sequential(block, nn.Linear(4, CLASSES))

    for frozen in (True, False):
        run = make_run(tmp_path / str(frozen), net())
        run.model[0].requires_grad_(not frozen)
        before = weights(run.model)
        Fitter(run.folder)(run)
        assert torch.equal(run.model[0][1].running_mean, before["0.1.running_mean"]) == frozen


def test_a_part_keeps_a_module_in_evaluation_mode(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    setattr(run.model[1], STAY_EVAL, True)
    before = weights(run.model)
    Fitter(tmp_path)(run)
    assert torch.equal(run.model[1].running_mean, before["1.running_mean"])
    assert not torch.equal(run.model[1].weight, before["1.weight"])


class Unfreeze(Part):
    """Trains the head for one epoch, then everything: the batch norm's statistics must move again."""

    def prepare(self, run: Run, fit: Any) -> None:
        run.model[0].requires_grad_(False)
        run.model[1].requires_grad_(False)

    def callbacks(self, run: Run) -> list[Any]:
        from pytorch_lightning.callbacks import Callback

        class Gradual(Callback):
            def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
                if trainer.current_epoch == 1:
                    body = [*run.model[0].parameters(), *run.model[1].parameters()]
                    for parameter in body:
                        parameter.requires_grad_(True)
                    trainer.optimizers[0].add_param_group({"params": body, "lr": 0.01})

        return [Gradual()]


def test_gradual_unfreezing(tmp_path: Path) -> None:
    run = make_run(tmp_path, parts=[Unfreeze()], max_epochs=2, scheduler=Scheduler("constant"))
    run.parts[0].prepare(run, None)
    before = weights(run.model)
    Fitter(tmp_path)(run, 1)
    assert torch.equal(run.model[1].running_mean, before["1.running_mean"])
    Fitter(tmp_path / "b")(run, 2, name="second")
    if run.history[-1].best_epoch == 2:
        assert not torch.equal(run.model[0].weight, before["0.weight"])
        assert not torch.equal(run.model[1].running_mean, before["1.running_mean"])
    else:
        pytest.fail("choose data on which the second epoch is the better one")


def test_a_loss_that_is_not_finite_stops_the_run_and_says_where(tmp_path: Path) -> None:
    class Poison(Part):
        def __init__(self) -> None:
            self.count = 0

        def loss(self, run: Run, batch: Batch, output: Output) -> dict[str, Tensor]:
            self.count += 1
            return {"a": output.logits.sum() * (float("nan") if self.count == 7 else 0.0)}

    run = make_run(tmp_path, linear(), parts=[Poison()], max_epochs=3)
    with pytest.raises(RunFailed, match=r"baseline: the loss is not finite in epoch 2 of 3, step 3 of 4"):
        Fitter(tmp_path)(run, name="baseline")
    assert isinstance(run.progress, Memory) and run.progress.open == 0


def test_a_structure_that_changes_during_a_fit_is_refused(tmp_path: Path) -> None:
    from pytorch_lightning.callbacks import Callback

    class Grow(Part):
        def callbacks(self, run: Run) -> list[Any]:
            class Swap(Callback):
                def on_train_end(self, *_: Any) -> None:
                    run.model[0] = nn.Linear(FEATURES, CLASSES + 1)

            return [Swap()]

    with pytest.raises(RunFailed, match="a Part changed the net's structure"):
        Fitter(tmp_path)(make_run(tmp_path, linear(), parts=[Grow()]))


def test_the_name_loss_is_the_totals(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="'loss' is the total"):
        Fitter(tmp_path)(make_run(tmp_path, linear(), parts=[Terms(loss=1.0)]))
