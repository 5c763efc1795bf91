"""Peak memory of every compression step beside that of training the same model.

    python experiments/benchmarks/memory_compression.py                    # all steps, about 5 minutes on two cores
    python experiments/benchmarks/memory_compression.py l0 quantization    # some; the others' rows stay as they were

Each step runs in a process of its own, forked once the imports are done. It first trains and compresses a small net,
so that all code is loaded, then trains the large one, reads its peak resident memory, takes the step as the pipeline
does, with one epoch of recovery, and reads the peak again. Writes memory_compression.json and memory_compression.md
beside this file.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
LIMIT = 2.5
"""Target: multiples of the model's own size above training's peak."""

MODEL: dict[str, Any] = {"name": "resnet", "width": 64, "depth": [2, 2, 2, 2]}
SMALL: dict[str, Any] = {"name": "resnet", "width": 8, "depth": [1, 1, 1]}
IMAGES, SIDE, BATCH = 64, 14, 32
"""Few small images in small batches: activations of more would lift training's peak and hide what a step needs."""

STEPS: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "recovery alone": ("none", {}, {}),
    "random_pruning": ("random_pruning", {}, {}),
    "magnitude_pruning": ("magnitude_pruning", {}, {}),
    "channel_pruning": ("channel_pruning", {}, {}),
    "channel_pruning, taylor": ("channel_pruning", {"criterion": "taylor", "samples": 64}, {}),
    "channel_pruning, max_drop": ("channel_pruning", {}, {"max_drop": 1.0}),
    "structured_sparsity": ("structured_sparsity", {"epochs": 1}, {}),
    "gaussian_constraint": ("gaussian_constraint", {"epochs": 1}, {}),
    "variational_dropout": ("variational_dropout", {}, {}),
    "l0": ("l0", {}, {}),
    "low_rank": ("low_rank", {}, {}),
    "weight_sharing": ("weight_sharing", {}, {}),
    "activation": ("activation", {}, {}),
    "quantization": ("quantization", {}, {}),
    "quantization, QAT": ("quantization", {"mode": "qat"}, {}),
    "reestimate_norm": ("reestimate_norm", {}, {}),
}
"""By label: the plugin, its arguments, and the driver's options."""


def peak_mb() -> float:
    """Largest resident memory of this process so far, MB (10⁶ bytes)."""
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6


def work(label: str, data: Any, results: Any) -> None:
    """Puts the figures of one step into a queue."""
    with tempfile.TemporaryDirectory() as folder:
        once(label, data, SMALL, Path(folder) / "small")
        results.put(once(label, data, MODEL, Path(folder) / "large"))


def once(label: str, data: Any, model: dict[str, Any], folder: Path) -> dict[str, float]:
    """Trains for an epoch, then takes the step; peaks in MB."""
    from bigopt import registry
    from bigopt.pipeline.build import Builder
    from bigopt.pipeline.driver import compress, frozen_copy
    from bigopt.pipeline.relay import Relay
    from bigopt.train import Fitter
    from bigopt.vocabulary.objective import Monitor
    from bigopt.vocabulary.part import Part
    from bigopt.vocabulary.run import Run, Silent
    from bigopt.vocabulary.settings import Recover, Settings, StepOptions, Trainer
    from bigopt.vocabulary.task import Task

    folder.mkdir()
    plugin, arguments, options = STEPS[label]
    builder = Builder(0)
    run = Run(
        builder.model(model, data),
        data,
        Task.of(data.schema),
        Monitor("val/accuracy", "max"),
        Settings(trainer=Trainer(max_epochs=1, batch_size=BATCH, eval_batch_size=BATCH, compile="off")),
        folder,
        0,
        builder,
        Silent(),
        Relay(None, lambda *_: None),
    )
    size = sum(tensor.nbytes for tensor in run.model.state_dict().values()) / 1e6
    fit = Fitter(folder)
    fit(run, name="baseline")
    training = peak_mb()
    run.baseline = frozen_copy(run.model)
    part = Part() if plugin == "none" else registry.build("compression", plugin, arguments)
    compress(run, plugin, part, StepOptions(recover=Recover(epochs=1), **options), fit)
    peak = peak_mb()
    return {"model_mb": size, "training_mb": training, "peak_mb": peak, "multiple": (peak - training) / size}


def images() -> Any:
    """The middles of the first images of Fashion-MNIST."""
    import torch

    from bigopt import registry
    from bigopt.vocabulary.data import TensorSplit

    data = registry.build("datasets", "fashion_mnist", {"limit": 10 * IMAGES}, {"seed": 0})
    edge = (data.schema.shape[-1] - SIDE) // 2
    for name in ("train", "val"):
        split = getattr(data, name)
        index = torch.arange(min(IMAGES, len(split)))
        x = split.take(index)[..., edge : edge + SIDE, edge : edge + SIDE].contiguous()
        setattr(data, name, TensorSplit(x, split.y[index]))
    data.schema = replace(data.schema, shape=(1, SIDE, SIDE))
    return data


def table(results: dict[str, dict[str, float]]) -> str:
    rows = [
        "| step | training's peak, MB | peak with the step, MB | above training, in model sizes |",
        "|---|---|---|---|",
    ]
    for label in (label for label in STEPS if label in results):
        one = results[label]
        missed = "" if one["multiple"] <= LIMIT else " (missed)"
        rows.append(f"| {label} | {one['training_mb']:.0f} | {one['peak_mb']:.0f} | {one['multiple']:.2f}×{missed} |")
    return "\n".join(rows) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("steps", nargs="*", help=f"default: all ({', '.join(STEPS)})")
    options = parser.parse_args()
    import torch

    import bigopt.train._session  # noqa: F401
    import bigopt_plugins.compression  # noqa: F401

    torch.set_num_threads(1)
    data, context = images(), multiprocessing.get_context("fork")
    file = HERE / "memory_compression.json"
    for label in options.steps or STEPS:
        queue = context.Queue()
        process = context.Process(target=work, args=(label, data, queue))
        process.start()
        process.join()
        if process.exitcode:
            raise SystemExit(f"{label} failed")
        found = queue.get()
        results = json.loads(file.read_text()) if file.exists() else {}
        file.write_text(json.dumps({**results, label: found}, indent=1) + "\n")
        print(f"{label:28s} {found['multiple']:6.2f}", flush=True)
    (HERE / "memory_compression.md").write_text(table(json.loads(file.read_text())))


if __name__ == "__main__":
    main()
