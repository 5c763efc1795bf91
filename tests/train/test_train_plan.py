"""Decisions that the configuration leaves open: device, precision, memory format, compilation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from train_fakes import CLASSES, FEATURES, data, linear, make_run, mlp, same, weights

from bigopt.train import Fitter, precision
from bigopt.train import compile as compilation
from bigopt.train.job import Job
from bigopt.train.plan import Plan, resolve_plan, wants_channels_last
from bigopt.vocabulary.errors import RequestError
from bigopt.vocabulary.part import Part
from bigopt.vocabulary.run import Run
from bigopt.vocabulary.settings import Optimizer


def job_of(run: Run, epochs: int = 2, taps: tuple[str, ...] = ()) -> Job:
    return Job(run, "fit", epochs, 1e-2, [], {}, 0, taps)


def test_auto_takes_bf16_only_with_the_hardware(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = make_run(tmp_path, precision="auto", accelerator="cpu")
    monkeypatch.setattr(precision, "has_bf16", lambda accelerator: False)
    plan, notes = resolve_plan(job_of(run))
    assert plan.precision == "fp32" and notes == ["precision fp32: no bf16 hardware"]
    monkeypatch.setattr(precision, "has_bf16", lambda accelerator: True)
    plan, notes = resolve_plan(job_of(run))
    assert plan.precision == "bf16" and "no accuracy lost" in notes[0]


def test_hardware_flags(monkeypatch: pytest.MonkeyPatch) -> None:
    for flags, capability, expected in (
        ({"avx512_bf16", "avx512f"}, "AVX512", True),
        ({"amx_bf16"}, "AVX512", True),
        ({"avx512f"}, "AVX512", False),
        ({"avx2"}, "AVX2", False),
        ({"avx512_bf16"}, "AVX2", False),  # torch was built or told to do without
        ({"bf16", "asimd"}, "DEFAULT", True),
    ):
        monkeypatch.setattr(precision, "_cpu_flags", lambda flags=flags: flags)
        monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda capability=capability: capability)
        assert precision.has_bf16("cpu") is expected, flags


class Fragile(nn.Module):
    """Its logits hang on digits that bfloat16 does not have."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.inner = nn.Linear(FEATURES, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return (self.inner(x) + 1000.0) - 1000.0


def test_bf16_is_refused_where_it_changes_the_logits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "has_bf16", lambda accelerator: True)
    run = make_run(tmp_path, Fragile(), precision="auto", accelerator="cpu")
    before = weights(run.model)
    plan, notes = resolve_plan(job_of(run))
    assert plan.precision == "fp32" and "bf16 changes the logits by" in notes[0]
    assert same(weights(run.model), before)


def test_bf16_is_refused_where_the_loss_suffers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from bigopt.train.trial import Trial

    losses = iter([1.0] * precision.STEPS + [1.0] * (precision.STEPS // 2) + [1.1] * (precision.STEPS // 2))
    monkeypatch.setattr(Trial, "step", lambda self: torch.tensor(next(losses)))
    found = precision.loses_accuracy(job_of(make_run(tmp_path, linear())), Plan())
    assert found == "bf16 raises the loss of 10 steps from 1 to 1.1"


def test_training_in_bf16(tmp_path: Path) -> None:
    seen = []

    class Look(Part):
        def taps(self, run: Run) -> tuple[str, ...]:
            return ("0",)

        def loss(self, run: Run, batch: Any, output: Any) -> dict[str, Tensor]:
            seen.append((output.logits.dtype, output.taps["0"].dtype))
            return {}

    run = make_run(tmp_path, mlp(), data(train=256), [Look()], Optimizer(lr=0.05), precision="bf16", max_epochs=6)
    history = Fitter(tmp_path)(run)
    assert set(seen) == {(torch.float32, torch.bfloat16)}
    assert run.model[0].weight.dtype is torch.float32
    assert history.epochs[-1]["train/loss"] < 0.7 * history.epochs[0]["train/loss"]


def test_what_cannot_be_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(RequestError, match="fp16 needs a GPU"):
        resolve_plan(job_of(make_run(tmp_path, precision="fp16")))
    with pytest.raises(RequestError, match="trainer.accelerator: got gpu"):
        resolve_plan(job_of(make_run(tmp_path, accelerator="gpu")))


def test_channels_last_follows_the_rule_and_leaves_no_trace(tmp_path: Path) -> None:
    wide = nn.Sequential(nn.Conv2d(1, 8, 3), nn.Conv2d(8, 8, 3))
    assert wants_channels_last(wide, "auto") and not wants_channels_last(wide, "off")
    assert not wants_channels_last(nn.Sequential(wide, nn.Conv2d(8, 7, 3)), "auto")
    assert not wants_channels_last(mlp(), "auto") and wants_channels_last(mlp(), "on")
    formats = set()

    class Look(Part):
        def loss(self, run: Run, batch: Any, output: Any) -> dict[str, Tensor]:
            formats.add(run.model[0].weight.is_contiguous(memory_format=torch.channels_last))
            return {}

    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 8, 2), nn.Conv2d(8, 9, 2), nn.Flatten(), nn.Linear(144, CLASSES))
    run = make_run(tmp_path, net, data(image=True), [Look()])
    Fitter(tmp_path)(run)
    assert formats == {True}
    assert run.model[1].weight.is_contiguous()


def test_compilation_is_for_long_trainings_with_a_compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = make_run(tmp_path, compile="auto")
    assert compilation.decide(job_of(run), Plan()) == (False, None)
    monkeypatch.setattr(compilation, "estimate", lambda job, plan: 1000.0)
    assert compilation.decide(job_of(run), Plan()) == (True, "compiled: 1000 s of training estimated without")
    assert compilation.decide(job_of(run, taps=("0",)), Plan()) == (False, None)
    monkeypatch.setattr(compilation.shutil, "which", lambda name: None)
    assert compilation.decide(job_of(run), Plan()) == (False, None)
    wanted = make_run(tmp_path, compile="on")
    assert compilation.decide(job_of(wanted), Plan()) == (False, "not compiled: no C++ compiler was found")
    assert compilation.decide(job_of(make_run(tmp_path)), Plan()) == (False, None)


def test_the_estimate_leaves_the_model_alone(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    before = weights(run.model)
    assert 0 < compilation.estimate(job_of(run, epochs=10), Plan()) < 60
    assert same(weights(run.model), before)
    assert all(parameter.grad is None for parameter in run.model.parameters())


def fake_compiler(calls: list[int]) -> Any:
    """Stands in for ``torch.compile``, which takes too long here: counts, and computes the same."""

    def compile_(model: nn.Module, **_: Any) -> Any:
        def call(x: Tensor) -> Tensor:
            calls.append(len(x))
            return model(x)  # type: ignore[no-any-return]

        return call

    return compile_


def test_full_batches_run_compiled_and_trying_it_out_leaves_no_trace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    eager = make_run(tmp_path / "a", dataset=data(train=40))
    Fitter(eager.folder)(eager)
    calls: list[int] = []
    monkeypatch.setattr(torch, "compile", fake_compiler(calls))
    run = make_run(tmp_path / "b", dataset=data(train=40), compile="on")
    history = Fitter(run.folder)(run)
    assert calls == [16] * 5  # once to try, then two full batches in each of two epochs
    assert same(weights(run.model), weights(eager.model))
    assert history.notes == eager.history[0].notes


def test_a_compiler_that_fails_is_noted_and_training_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(model: nn.Module, **_: Any) -> Any:
        def call(x: Tensor) -> Tensor:
            raise RuntimeError("g++ said no\nand more")

        return call

    monkeypatch.setattr(torch, "compile", broken)
    history = Fitter(tmp_path)(make_run(tmp_path, compile="on"))
    assert "not compiled: RuntimeError: g++ said no" in history.notes
    assert len(history.epochs) == 2
