"""Optimizer, groups, clipping, accumulation and the moving average, each against arithmetic by hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from train_fakes import CLASSES, FEATURES, data, linear, make_run, mlp, same, weights

from bigopt.train import Fitter
from bigopt.train.ema import Average
from bigopt.train.optim import build_optimizer, default_groups, match_layout
from bigopt.vocabulary.batch import Batch, Output
from bigopt.vocabulary.errors import RequestError
from bigopt.vocabulary.part import Part
from bigopt.vocabulary.run import Run
from bigopt.vocabulary.settings import Optimizer, Scheduler

CONSTANT = Scheduler("constant")
SGD = Optimizer("sgd", lr=0.1, weight_decay=0.0, momentum=0.0, nesterov=False)


class Watch(Part):
    """Keeps the model's weights after every optimizer step."""

    def __init__(self) -> None:
        self.seen: list[dict[str, torch.Tensor]] = []

    def callbacks(self, run: Run) -> list[Any]:
        from pytorch_lightning.callbacks import Callback

        seen = self.seen

        class After(Callback):
            def on_train_batch_end(self, trainer: Any, pl_module: Any, *_: Any) -> None:
                seen.append(weights(run.model))

        return [After()]


def test_decay_spares_norms_biases_and_leaves_out_frozen_parameters() -> None:
    model = mlp()
    model[0].weight.requires_grad_(False)
    decayed, spared = default_groups(model.parameters(), Optimizer(weight_decay=0.3), lr=0.2)
    assert [p.shape for p in decayed["params"]] == [(CLASSES, 8)]
    assert decayed["weight_decay"] == 0.3 and spared["weight_decay"] == 0.0
    assert len(spared["params"]) == 4  # two biases, scale and shift of the batch norm
    assert {id(p) for p in (*decayed["params"], *spared["params"])} == {
        id(p) for n, p in model.named_parameters() if n != "0.weight"
    }


@pytest.mark.parametrize("name", ["adamw", "adam", "nadam", "radam", "sgd", "rmsprop", "adagrad"])
def test_every_optimizer_moves_the_weights(name: Any, tmp_path: Path) -> None:
    run = make_run(tmp_path, linear(), optimizer=Optimizer(name, lr=0.05), max_epochs=3)
    history = Fitter(tmp_path)(run)
    assert history.epochs[-1]["train/loss"] < history.epochs[0]["train/loss"]


def test_a_gradient_in_another_memory_format_is_not_mixed_up() -> None:
    """torch's fused CPU kernels would: they walk weight and gradient in memory order."""
    start = torch.randn(4, 3, 2, 2, generator=torch.Generator().manual_seed(0))
    results = []
    for layout in (torch.channels_last, torch.contiguous_format):
        weight = nn.Parameter(start.clone().contiguous(memory_format=torch.channels_last))
        optimizer = build_optimizer([{"params": [weight], "lr": 0.1}], Optimizer(), fused=True)
        for seed in range(3):
            gradient = torch.randn(4, 3, 2, 2, generator=torch.Generator().manual_seed(seed))
            weight.grad = gradient.contiguous(memory_format=layout)
            match_layout(optimizer)
            optimizer.step()
        results.append(weight.detach().contiguous())
    assert torch.allclose(results[0], results[1], atol=1e-6)


class Rates(Part):
    """Gives the biases a tenth of the rate."""

    def param_groups(self, run: Run, groups: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [group | {"lr": group["lr"] * (1.0 if group["params"][0].ndim > 1 else 0.1)} for group in groups]


def test_parts_change_the_rates_and_the_schedule_scales_them(tmp_path: Path) -> None:
    """One step of plain SGD: w ← w - lr·g, so the ratio of movement to gradient tells the rate."""
    dataset = data(train=16)
    run = make_run(tmp_path, linear(), dataset, [Rates()], SGD, CONSTANT, max_epochs=1)
    before, model = weights(run.model), linear()
    run.task.loss(model(dataset.train.take(torch.arange(16))), dataset.train.y).backward()
    Fitter(tmp_path)(run, lr=0.5)
    after = weights(run.model)
    assert torch.allclose(before["0.weight"] - after["0.weight"], 0.5 * model[0].weight.grad, atol=1e-6)
    assert torch.allclose(before["0.bias"] - after["0.bias"], 0.05 * model[0].bias.grad, atol=1e-6)


def test_clipping_bounds_the_gradients_norm(tmp_path: Path) -> None:
    run = make_run(tmp_path, linear(), data(train=16), [], SGD, CONSTANT, max_epochs=1, gradient_clip=0.01)
    before = weights(run.model)
    Fitter(tmp_path)(run, lr=1.0)
    after = weights(run.model)
    moved = torch.cat([(after[name] - before[name]).reshape(-1) for name in before])
    assert float(moved.norm()) == pytest.approx(0.01, rel=1e-3)


def test_accumulation_equals_a_larger_batch(tmp_path: Path) -> None:
    results = []
    for batch_size, accumulate in ((32, 1), (8, 4)):
        run = make_run(
            tmp_path / str(accumulate),
            linear(),
            data(),
            [],
            SGD,
            CONSTANT,
            batch_size=batch_size,
            accumulate=accumulate,
        )
        Fitter(run.folder)(run)
        results.append(weights(run.model))
    for name, value in results[0].items():
        assert torch.allclose(value, results[1][name], atol=1e-6), name


def test_accumulation_steps_with_what_is_left_at_the_end_of_an_epoch(tmp_path: Path) -> None:
    watch = Watch()
    run = make_run(tmp_path, linear(), data(train=48), [watch], SGD, CONSTANT, max_epochs=1, accumulate=2)
    start = weights(run.model)
    Fitter(tmp_path)(run)
    first, second, third = watch.seen
    assert same(first, start) and not same(second, first) and not same(third, second)


def test_the_average_equals_its_closed_form(tmp_path: Path) -> None:
    """Decay d: d^n · w_0 + (1 - d) · Σ d^(n-i) · w_i, running statistics included; whole numbers are the model's."""
    decay, watch = 0.8, Watch()
    run = make_run(tmp_path, mlp(dropout=0.0), data(), [watch], Optimizer(lr=0.05), max_epochs=1, ema=decay)
    start = weights(run.model)
    Fitter(tmp_path)(run)
    kept, steps = weights(run.model), len(watch.seen)
    assert steps == 4
    for name, value in kept.items():
        if not value.is_floating_point():
            assert value == steps
            continue
        expected = decay**steps * start[name]
        for i, seen in enumerate(watch.seen, start=1):
            expected = expected + (1 - decay) * decay ** (steps - i) * seen[name]
        assert torch.allclose(value, expected, atol=1e-6), name


def test_the_average_is_what_is_validated(tmp_path: Path) -> None:
    from bigopt.train import evaluate

    run = make_run(tmp_path, mlp(), optimizer=Optimizer(lr=0.1), ema=0.9, max_epochs=3)
    history = Fitter(tmp_path)(run)
    metrics = evaluate(run, run.data.val)
    assert metrics["loss"] == pytest.approx(history.epochs[history.best_epoch - 1]["val/loss"], abs=1e-6)


def test_swapping_twice_gives_the_same_bits_and_constants_never_drift() -> None:
    model = nn.Linear(FEATURES, CLASSES)
    model.register_buffer("constant", torch.tensor([0.1, 1 / 3]))
    average = Average(model, 0.7)
    for _ in range(50):
        with torch.no_grad():
            model.weight.add_(0.1)
        average.update()
    before = weights(model)
    average.swap()
    assert not torch.equal(model.weight, before["weight"])
    assert torch.equal(model.constant, before["constant"])
    average.swap()
    assert same(weights(model), before)

    def loss(self, run: Run, batch: Batch, output: Output) -> dict[str, torch.Tensor]:
        return {"l2": sum((p.square().sum() for p in run.model.parameters()), torch.zeros(()))}


def test_nothing_to_train_is_refused(tmp_path: Path) -> None:
    run = make_run(tmp_path, linear())
    run.model.requires_grad_(False)
    with pytest.raises(RequestError, match="nothing to train"):
        Fitter(tmp_path)(run)


def test_one_parameter_in_two_groups_is_refused(tmp_path: Path) -> None:
    class Twice(Part):
        def param_groups(self, run: Run, groups: list[dict[str, Any]]) -> list[dict[str, Any]]:
            return [*groups, dict(groups[0])]

    with pytest.raises(RequestError, match="two of the optimizer's groups"):
        Fitter(tmp_path)(make_run(tmp_path, linear(), parts=[Twice()]))


def test_rates_follow_the_schedule(tmp_path: Path) -> None:
    """The rate of an epoch's last step: linear from the peak to 0 over 8 steps."""
    run = make_run(tmp_path, linear(), optimizer=replace(SGD, lr=0.4), scheduler=Scheduler("linear"), max_epochs=2)
    history = Fitter(tmp_path)(run)
    assert [row["lr"] for row in history.epochs] == pytest.approx([0.4 * (1 - 3 / 8), 0.4 * (1 - 7 / 8)])


def test_plateau_cuts_the_rate(tmp_path: Path) -> None:
    """With a rate of zero progress nothing improves: the rate is cut after more than ``patience`` epochs."""
    run = make_run(
        tmp_path,
        linear(),
        optimizer=replace(SGD, lr=1e-12),
        scheduler=Scheduler("plateau", gamma=0.5, patience=1),
        max_epochs=6,
    )
    history = Fitter(tmp_path)(run)
    assert [row["lr"] / 1e-12 for row in history.epochs] == pytest.approx([1, 1, 1, 0.5, 0.5, 0.25])
