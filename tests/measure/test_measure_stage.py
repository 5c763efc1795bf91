from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from bigopt.measure import StageMeasure, measure_stage, predict_onnx
from bigopt.measure import stage as stage_module
from bigopt.store import write_atomic
from bigopt.vocabulary.data import Data, Schema, TensorSplit
from bigopt.vocabulary.errors import RequestError, RunFailed
from bigopt.vocabulary.objective import Monitor
from bigopt.vocabulary.run import History, Run, Silent
from bigopt.vocabulary.settings import Evaluate, Measure, Settings
from bigopt.vocabulary.task import Task

QUICK = Settings(measure=Measure(large_batch=16, repeats=10, warmup=1))
STILL = replace(QUICK, measure=replace(QUICK.measure, latency=False))


def net(hidden: int) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, hidden), nn.ReLU(), nn.Linear(hidden, 3))


@pytest.fixture(scope="module")
def run() -> Run:
    generator = torch.Generator().manual_seed(0)
    schema = Schema("classification", "tabular", (6,), 3)
    splits = [
        TensorSplit(torch.randn(rows, 6, generator=generator), torch.randint(0, 3, (rows,), generator=generator))
        for rows in (40, 37)
    ]
    nothing: Any = None
    return Run(
        model=net(64), data=Data("noise", schema, *splits, test=None), task=Task.of(schema),
        monitor=Monitor("val/accuracy", "max"), settings=QUICK, folder=Path(), seed=0, build=nothing,
        report=Silent(), progress=nothing,
        history=[History("baseline", [{"val/accuracy": 0.0}, {"val/accuracy": 1.0}])],
    )  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("run")


@pytest.fixture(scope="module")
def baseline(run: Run, folder: Path) -> StageMeasure:
    return measure_stage(run, folder, "baseline", QUICK)


def test_the_row_of_the_baseline(run: Run, folder: Path, baseline: StageMeasure) -> None:
    file = folder / "stages" / "baseline" / "model.onnx"
    assert baseline.onnx == file.resolve()
    assert torch.equal(baseline.logits, predict_onnx(file, run.data.val))
    expected = run.task.metrics(baseline.logits, run.data.val.y)
    assert baseline.metrics == {f"val/{name}": value for name, value in expected.items()}
    weights = 6 * 64 + 64 * 3
    assert (baseline.parameters, baseline.nonzero) == (weights + 67, weights + 67)
    assert (baseline.macs, baseline.bops, baseline.weight_bits) == (weights, weights * 1024, 32)
    assert baseline.bytes == file.stat().st_size
    assert baseline.bytes_zip is not None and 0.5 * weights * 4 < baseline.bytes_zip < baseline.bytes
    assert baseline.max_abs_diff is not None and baseline.max_abs_diff < 1e-5
    assert (baseline.agreement, baseline.notes, baseline.size_ratio) == (1.0, [], 1.0)
    assert baseline.speedup == {"batch_1": 1.0, "batch_16": 1.0}
    assert set(baseline.latency_ms) == {"batch_1", "batch_16"} and baseline.seconds > 0


def test_files_beside_the_row(folder: Path, baseline: StageMeasure) -> None:
    where = folder / "stages" / "baseline"
    assert sorted(path.name for path in where.iterdir()) == ["logits.npy", "measure.json", "model.onnx"]
    assert np.array_equal(np.load(where / "logits.npy", allow_pickle=False), baseline.logits.numpy())
    facts = json.loads((where / "measure.json").read_text())
    assert (facts["name"], facts["macs"], facts["latency_ms"]) == ("baseline", baseline.macs, baseline.latency_ms)
    assert "logits" not in facts and "onnx" not in facts


def test_ratios_refer_to_the_baseline(run: Run, folder: Path, baseline: StageMeasure) -> None:
    small = measure_stage(run, folder, "small", QUICK, baseline, model=net(8))
    assert small.macs == 6 * 8 + 8 * 3 and run.model[0].out_features == 64
    assert baseline.bytes is not None and small.bytes is not None
    assert small.size_ratio == baseline.bytes / small.bytes > 2
    assert set(small.speedup) == {"batch_1", "batch_16"} and all(0.3 < ratio < 10 for ratio in small.speedup.values())


class Shifted(nn.Module):
    """A model whose exported file says something else."""

    def forward(self, x: Tensor) -> Tensor:
        return x[:, :3] + (0.5 if torch.compiler.is_compiling() else 0.0)


def test_a_file_that_differs_is_noted(run: Run, folder: Path) -> None:
    stage = measure_stage(run, folder, "shifted", STILL, model=Shifted())
    assert stage.max_abs_diff == pytest.approx(0.5) and stage.agreement == 1.0
    assert stage.notes == ["the file differs from the model by 0.5, more than " + stage.notes[0].split()[-1]]
    assert stage.metrics["val/loss"] == pytest.approx(run.task.metrics(stage.logits, run.data.val.y)["loss"])
    assert torch.allclose(stage.logits, run.data.val.take(torch.arange(37))[:, :3] + 0.5)  # the file's, not the model's


def test_a_quantized_file_that_disagrees_is_noted(
    run: Run, folder: Path, quantized: nn.Module, quantized_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def exported(_model: nn.Module, _example: Tensor, path: Path) -> Path:
        return write_atomic(path, quantized_file.read_bytes())

    images = replace(run, data=image_data(rows=50))
    monkeypatch.setattr(stage_module, "export_onnx", exported)
    stage = measure_stage(images, folder, "int8", STILL, model=quantized, bits=(8, 8))
    assert stage.agreement is not None and stage.agreement >= 0.995 and stage.notes == []
    assert stage.bops == stage.macs * 64 and 8 < stage.weight_bits < 9
    monkeypatch.setattr(stage_module, "predict_model", lambda *_: -stage.logits)
    wrong = measure_stage(images, folder, "wrong", STILL, model=quantized)
    assert len(wrong.notes) == 1 and "of the validation split, less than 99.5%" in wrong.notes[0]


def image_data(rows: int) -> Data:
    generator = torch.Generator().manual_seed(2)
    x, y = torch.rand(rows, 1, 8, 8, generator=generator), torch.randint(0, 3, (rows,), generator=generator)
    split = TensorSplit(x, y)
    return Data("images", Schema("classification", "image", (1, 8, 8), 3), split, split, test=None)


def test_without_export_the_model_is_measured(run: Run, tmp_path: Path, baseline: StageMeasure) -> None:
    settings = replace(QUICK, measure=replace(QUICK.measure, export=False))
    stage = measure_stage(run, tmp_path, "memory", settings, baseline, bits=(4, 4))
    assert (stage.onnx, stage.bytes, stage.size_ratio, stage.latency_ms) == (None, None, None, {})
    assert (stage.macs, stage.bops) == (baseline.macs, baseline.bops)  # no integers there, so 4 bits are not believed
    assert stage.metrics["val/accuracy"] == baseline.metrics["val/accuracy"]
    assert sorted(path.name for path in (tmp_path / "stages" / "memory").iterdir()) == ["logits.npy", "measure.json"]


def test_robustness_joins_the_metrics(run: Run, folder: Path, baseline: StageMeasure) -> None:
    settings = replace(STILL, evaluate=Evaluate("robustness", (1, 5)))
    first = measure_stage(run, folder, "robust", settings)
    assert set(first.robustness["corruptions"]) == {"feature_noise"}
    assert first.metrics["robustness/mean"] == first.robustness["mean"]
    assert first.robustness["target"] == pytest.approx(0.95 * first.metrics["val/accuracy"])
    assert first.metrics["robustness/epochs_to_target"] == 2  # of the run's own history
    assert (first.latency_ms, first.speedup, first.size_ratio) == ({}, {}, 1.0)  # measure.latency=false
    settings = replace(settings, measure=replace(STILL.measure, export=False))
    later = measure_stage(run, folder, "robust_later", settings, first)
    assert later.robustness["epochs_to_target"] is None and "robustness/epochs_to_target" not in later.metrics
    trained = [History("recover", [{"val/accuracy": 1.0}])]
    again = measure_stage(run, folder, "robust_again", settings, first, history=trained)
    assert again.robustness["epochs_to_target"] == 1
    assert again.robustness["corruptions"] == first.robustness["corruptions"]


@pytest.mark.parametrize("name", ["", "../outside", "a/b", "..", "."])
def test_names_that_leave_the_folder_are_refused(name: str, run: Run, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="stage name"):
        measure_stage(run, tmp_path, name, STILL)
    assert list(tmp_path.iterdir()) == []


def test_a_model_that_cannot_be_exported_says_what_to_do(run: Run, tmp_path: Path) -> None:
    class Counting(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x[:, :3] if x.sum() > 0 else x[:, 3:]

    with pytest.raises(RunFailed, match=r"odd: ONNX export failed at layer 1 \(Counting\).*measure.export=false"):
        measure_stage(run, tmp_path, "odd", STILL, model=nn.Sequential(nn.Identity(), Counting()))
