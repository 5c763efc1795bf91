"""Everything that one stage's row says, measured on the file that would be deployed."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from bigopt.measure._agreement import agreement, sizes
from bigopt.measure._count import count
from bigopt.measure._count_onnx import count_onnx
from bigopt.measure._inference import device_of, inference
from bigopt.measure._latency import latency_rounds, rows_of
from bigopt.measure._robustness import epochs_to_target, near, robustness, robustness_metrics
from bigopt.measure.counts import FLOAT, Bits, refined
from bigopt.measure.export import export_onnx
from bigopt.measure.session import predict_onnx
from bigopt.measure.stage_measure import StageMeasure, save_measure
from bigopt.store import inside
from bigopt.vocabulary.data import Split
from bigopt.vocabulary.errors import RequestError, RunFailed
from bigopt.vocabulary.part import further_metrics
from bigopt.vocabulary.run import History, Run
from bigopt.vocabulary.settings import Settings

FLOAT_DIFFERENCE = 1e-4  # of the largest logit (at least 1): more between file and float model is noted
QUANTIZED_AGREEMENT = 0.995  # of the rows: less between file and quantized model is noted
REFERENCE = "/baseline"  # beside the stage's own name, which has no slash


def measure_stage(
    run: Run,
    folder: Path,
    name: str,
    settings: Settings,
    baseline: StageMeasure | None = None,
    *,
    model: nn.Module | None = None,
    bits: Bits = None,
    history: Sequence[History] | None = None,
) -> StageMeasure:
    """Exports a model, measures the file, and checks that the file is the model.

    Writes ``<folder>/stages/<name>/`` with ``model.onnx``, ``logits.npy`` and ``measure.json``.

    Args:
        run: data, task, and the model unless another one is given.
        folder: the run's folder.
        name: the stage; a folder's name.
        settings: of which ``measure``, ``evaluate`` and ``trainer.eval_batch_size`` are used.
        baseline: what ratios refer to; None measures the baseline itself.
        model: another model than the run's, such as the control.
        bits: widths that the compression step claims; they refine those of operands that the file stores as
            integers, and are not believed of others.
        history: of the stage's trainings, for the epochs to a target; None takes the run's for the baseline.

    Returns:
        what was measured.

    Raises:
        RunFailed: the model cannot be exported.
        RequestError: the name leads out of the run's folder.
        OSError: a file could not be written.
    """
    start = time.perf_counter()
    model = model if model is not None else run.model
    if name in ("", ".", "..") or "/" in name or "\\" in name:
        raise RequestError(f"stage name: got {name!r}, expected a plain folder name")
    where = inside(folder, f"stages/{name}")
    stage = _from_memory(run, name, model, settings, bits)
    if settings.measure.export:
        _measure_file(stage, run, where / "model.onnx", model, settings, bits)
    stage.metrics |= further_metrics(run, run.parts, model, _predictor(stage, model, settings))
    if settings.measure.export:
        if settings.measure.latency:
            _measure_latency(stage, run, settings, baseline)
        if stage.bytes is not None:
            stage.size_ratio = _ratio(baseline.bytes if baseline is not None else stage.bytes, stage.bytes)
    if settings.evaluate.name == "robustness":
        known = history if history is not None else (run.history if baseline is None else [])
        _measure_robustness(stage, run, model, settings, known, baseline or stage)
    stage.seconds = time.perf_counter() - start
    save_measure(stage, where)
    return stage


def predict_model(model: nn.Module, split: Split, batch_size: int) -> Tensor:
    """What a model in memory answers for every sample of a split, float32 on the CPU."""
    device = device_of(model)
    with inference(model) as ready:
        rows = torch.arange(len(split)).split(batch_size)
        return torch.cat([ready(split.take(index).to(device)).float().cpu() for index in rows])


def _predictor(stage: StageMeasure, model: nn.Module, settings: Settings) -> Callable[[Split], Tensor]:
    """Outputs for a split: of the file where there is one."""
    size, path = settings.trainer.eval_batch_size, stage.onnx
    if path is not None:
        return lambda split: predict_onnx(path, split, size)
    return lambda split: predict_model(model, split, size)


def _from_memory(run: Run, name: str, model: nn.Module, settings: Settings, bits: Bits) -> StageMeasure:
    """What the model itself tells, before there is a file."""
    val = run.data.val
    logits = predict_model(model, val, settings.trainer.eval_batch_size)
    counts = refined(count(model, val.take(torch.arange(1))), bits)
    return StageMeasure(
        name=name,
        metrics=_metrics(run, logits),
        logits=logits,
        onnx=None,
        parameters=counts.parameters,
        nonzero=counts.nonzero,
        macs=counts.macs,
        bops=counts.bops,
        weight_bits=counts.weight_bits,
    )


def _measure_file(stage: StageMeasure, run: Run, path: Path, model: nn.Module, settings: Settings, bits: Bits) -> None:
    """Replaces what the model told by what the file tells, wherever a file can."""
    try:
        stage.onnx = export_onnx(model, run.data.val.take(torch.arange(1)), path)
    except RunFailed as error:
        raise RunFailed(f"{stage.name}: {error}; measure.export=false measures the model in memory") from error
    in_memory = stage.logits
    stage.logits = predict_onnx(path, run.data.val, settings.trainer.eval_batch_size)
    stage.metrics = _metrics(run, stage.logits)
    stage.bytes, stage.bytes_zip = sizes(path)
    shipped = refined(count_onnx(path), bits)
    stage.macs, stage.bops, stage.weight_bits = shipped.macs, shipped.bops, shipped.weight_bits
    stage.max_abs_diff, stage.agreement = agreement(in_memory, stage.logits, run.task)
    quantized = any(layer.weight_bits < FLOAT for layer in shipped.layers)
    limit = FLOAT_DIFFERENCE * max(1.0, in_memory.abs().max().item())
    if quantized and stage.agreement < QUANTIZED_AGREEMENT:
        stage.notes.append(
            f"the file agrees with the model on {stage.agreement:.2%} of the validation split, "
            f"less than {QUANTIZED_AGREEMENT:.1%}"
        )
    elif not quantized and not stage.max_abs_diff <= limit:
        stage.notes.append(f"the file differs from the model by {stage.max_abs_diff:.2g}, more than {limit:.2g}")


def _measure_latency(stage: StageMeasure, run: Run, settings: Settings, baseline: StageMeasure | None) -> None:
    measure = settings.measure
    assert stage.onnx is not None
    files = {stage.name: stage.onnx}
    if baseline is not None and baseline.onnx is not None:
        files = {REFERENCE: baseline.onnx} | files
    example = run.data.val.take(torch.arange(min(len(run.data.val), measure.large_batch)))
    batches = sorted({1, measure.large_batch})
    measured = latency_rounds(
        files, rows_of(example, measure.large_batch), batches, measure.threads, measure.repeats, measure.warmup
    )
    reference = next(iter(files))
    for batch, rounds in measured.items():
        stage.latency_ms[f"batch_{batch}"] = rounds.percentiles(stage.name)
        if baseline is None or baseline.onnx is not None:
            stage.speedup[f"batch_{batch}"] = rounds.speedup(stage.name, reference)


def _measure_robustness(
    stage: StageMeasure,
    run: Run,
    model: nn.Module,
    settings: Settings,
    history: Sequence[History],
    reference: StageMeasure,
) -> None:
    """Evaluates what the row evaluates (the file, if there is one) on corrupted inputs."""
    size = settings.trainer.eval_batch_size
    data = run.data
    predict = stage.onnx if stage.onnx is not None else lambda split: predict_model(model, split, size)
    result = robustness(
        predict,
        data.val,
        data.schema,
        run.task,
        settings.evaluate.severities,
        run.seed,
        train=data.train,
        batch_size=size,
    )
    best = reference.metrics.get(run.monitor.metric)
    result["target"] = near(best, run.monitor) if best is not None else None
    result["epochs_to_target"] = epochs_to_target(history, run.monitor, result["target"]) if best is not None else None
    stage.robustness = result
    stage.metrics |= robustness_metrics(result)


def _metrics(run: Run, logits: Tensor) -> dict[str, float]:
    return {f"val/{name}": value for name, value in run.task.metrics(logits, run.data.val.y).items()}


def _ratio(reference: int | None, value: int) -> float | None:
    return reference / value if reference is not None and value else None
