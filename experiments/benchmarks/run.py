"""What bigopt costs and gains beside training by hand, as ratios measured in one run.

    python experiments/benchmarks/run.py            # everything, about 20 minutes on two cores
    python experiments/benchmarks/run.py startup    # one part: startup, training, extra_run

Writes results.json and table.md beside this file.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
BIGOPT = [sys.executable, "-m", "bigopt"]


def seconds(command: list[str], cwd: Path | None = None) -> float:
    start = time.perf_counter()
    subprocess.run(command, cwd=cwd, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.perf_counter() - start


def startup(repeats: int = 9) -> dict[str, Any]:
    """`--help` and `plugins` against importing Hydra, interleaved; medians."""
    commands = {
        "import hydra": [sys.executable, "-c", "import hydra"],
        "--help": [*BIGOPT, "--help"],
        "plugins": [*BIGOPT, "plugins"],
    }
    for command in commands.values():
        seconds(command)
    rounds = [{name: seconds(command) for name, command in commands.items()} for _ in range(repeats)]
    ratio = {
        name: statistics.median(one[name] / one["import hydra"] for one in rounds) for name in ("--help", "plugins")
    }
    return {"hydra_s": statistics.median(one["import hydra"] for one in rounds), "ratio": ratio, "target": 3.0}


VARIANTS = ("bigopt", "hand", "lightning")


MODELS: dict[str, tuple[dict[str, Any], int]] = {
    "mlp": ({"name": "mlp"}, 20000),
    "lenet5": ({"name": "lenet5"}, 20000),
    "resnet": ({"name": "resnet", "width": 16}, 6000),
}
"""Each model, with as many images as give a few seconds of training."""


def training(rounds: int = 3, epochs: int = 2) -> Any:
    """Fashion-MNIST: bigopt's default path, a hand-written loop, and plain Lightning; each in a fresh process."""
    found: dict[str, Any] = {}
    for model in MODELS:
        runs: dict[str, list[dict[str, float]]] = {name: [] for name in VARIANTS}
        for seed in range(rounds):
            order = VARIANTS[seed % 3 :] + VARIANTS[: seed % 3]
            for name in order:
                runs[name].append(worker(name, model, epochs, seed))
        speed = {name: [one["images_per_s"] for one in ones] for name, ones in runs.items()}
        found[model] = {
            "images_per_s": {name: statistics.median(values) for name, values in speed.items()},
            "accuracy": {name: statistics.mean(one["accuracy"] for one in ones) for name, ones in runs.items()},
            "peak_mb": {name: statistics.median(one["peak_mb"] for one in ones) for name, ones in runs.items()},
            "imported_mb": {name: statistics.median(one["imported_mb"] for one in ones) for name, ones in runs.items()},
            "over_lightning": paired(speed["bigopt"], speed["lightning"]),
            "overhead": paired(speed["hand"], speed["bigopt"]) - 1,
            "memory_overhead": paired(
                [one["peak_mb"] for one in runs["bigopt"]], [one["peak_mb"] for one in runs["hand"]]
            )
            - 1,
            "training_mb": {
                name: statistics.median(one["peak_mb"] - one["imported_mb"] for one in ones)
                for name, ones in runs.items()
            },
        }
    return found


def paired(a: list[float], b: list[float]) -> float:
    return statistics.median(x / y for x, y in zip(a, b, strict=True))


def worker(name: str, model: str, epochs: int, seed: int) -> dict[str, float]:
    """One training in a process of its own, so that peak memory is its own."""
    command = [sys.executable, __file__, "--worker", name, model, str(epochs), str(seed)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    result: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    print(f"  {model:8s} {name:10s} seed {seed}: {result['images_per_s']:8.0f} images/s", flush=True)
    return result


def work(name: str, model: str, epochs: int, seed: int) -> None:
    import torch

    if name == "bigopt":  # what training imports, before the clock starts and memory is read
        import bigopt.train._session  # noqa: F401
    elif name == "lightning":
        import pytorch_lightning  # noqa: F401

    from bigopt import registry
    from bigopt.pipeline.build import Builder
    from bigopt.train import predict

    spec, limit = MODELS[model]
    data = registry.build("datasets", "fashion_mnist", {"limit": limit}, {"seed": 0})
    torch.manual_seed(seed)
    net = Builder(seed).model(spec, data)
    imported = peak_mb()
    train: Callable[..., float] = {"bigopt": with_bigopt, "hand": by_hand, "lightning": with_lightning}[name]
    took = train(net, data, epochs, seed)
    peak = peak_mb()
    split = data.read_test()
    accuracy = (predict(net, split, 1024).argmax(1) == split.y).double().mean().item()
    found = {"images_per_s": epochs * len(data.train) / took, "accuracy": accuracy, "peak_mb": peak}
    print(json.dumps({**found, "imported_mb": imported, "seconds": took}))


def peak_mb() -> float:
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


BATCH = 128


def with_bigopt(net: Any, data: Any, epochs: int, seed: int) -> float:
    """The default path, its validation left out of the time as in the others."""
    from bigopt.pipeline.relay import Relay
    from bigopt.train import Fitter
    from bigopt.vocabulary.objective import Monitor
    from bigopt.vocabulary.run import Run, Silent
    from bigopt.vocabulary.settings import Scheduler, Settings, Trainer
    from bigopt.vocabulary.task import Task

    with tempfile.TemporaryDirectory() as folder:
        run = Run(
            net,
            data,
            Task.of(data.schema),
            Monitor("val/accuracy", "max"),
            Settings(trainer=Trainer(batch_size=BATCH), scheduler=Scheduler(name="constant")),
            Path(folder),
            seed,
            NothingToBuild(),
            Silent(),
            Relay(None, lambda *_: None),
        )
        history = Fitter(Path(folder))(run, epochs)
    return sum(one["seconds"] for one in history.epochs)


class NothingToBuild:
    """Nothing is built during this training."""


def by_hand(net: Any, data: Any, epochs: int, seed: int) -> float:
    """What one would write without a framework: tensors in memory, an index per batch, loss, backward, step."""
    import torch
    from torch.nn import functional

    norms = [p for p in net.parameters() if p.ndim < 2]
    others = [p for p in net.parameters() if p.ndim >= 2]
    groups = [{"params": others}, {"params": norms, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=1e-3, weight_decay=0.01)
    generator = torch.Generator().manual_seed(seed)
    net.train()
    start = time.perf_counter()
    for _ in range(epochs):
        for index in torch.randperm(len(data.train), generator=generator).split(BATCH):
            loss = functional.cross_entropy(net(data.train.take(index)), data.train.y[index])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return time.perf_counter() - start


def with_lightning(net: Any, data: Any, epochs: int, seed: int) -> float:
    """Lightning as its tutorials show it: a dataset per sample, a DataLoader, fp32."""
    import logging
    import warnings

    import pytorch_lightning as pl
    import torch
    from torch.nn import functional
    from torch.utils.data import DataLoader, Dataset

    warnings.simplefilter("ignore")
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)

    class Samples(Dataset):  # type: ignore[type-arg]
        def __len__(self) -> int:
            return len(data.train)

        def __getitem__(self, position: int) -> Any:
            return data.train.x[position].float() / 255, data.train.y[position]

    class Module(pl.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.net = net

        def training_step(self, batch: Any, _: int) -> Any:
            loss = functional.cross_entropy(self.net(batch[0]), batch[1])
            self.log("train_loss", loss)
            return loss

        def configure_optimizers(self) -> Any:
            return torch.optim.AdamW(self.parameters(), lr=1e-3, weight_decay=0.01)

    pl.seed_everything(seed)
    loader = DataLoader(Samples(), batch_size=BATCH, shuffle=True, num_workers=0)
    trainer = pl.Trainer(
        max_epochs=epochs,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        accelerator="cpu",
    )
    start = time.perf_counter()
    trainer.fit(Module(), loader)
    return time.perf_counter() - start


def extra_run(repeats: int = 3) -> dict[str, Any]:
    """One more run beyond its training: composition, tracking and reports; measuring and export; a cached baseline."""
    with tempfile.TemporaryDirectory() as folder:
        where = Path(folder)
        base = ["dataset=digits", "model=mlp", "trainer.max_epochs=1", "compression=[channel_pruning]"]
        sweep = [*BIGOPT, "-m", *base, "seed=" + ",".join(str(seed) for seed in range(1, repeats + 2))]
        seconds([*BIGOPT, *base], where)
        first = time.perf_counter()
        seconds(sweep, where)
        whole = time.perf_counter() - first
        reports = [
            json.loads(path.read_text())
            for path in sorted(where.glob("multirun/**/report.json"), key=lambda path: path.stat().st_mtime)
        ][1:]
        rest = [run_costs(report) for report in reports]
        cold = seconds([*BIGOPT, *base, "seed=77", "measure=quick"], where)
        warm = seconds([*BIGOPT, *base, "seed=77", "measure=quick"], where)
        cached = json.loads(newest_report(where).read_text())
    return {
        "measure_and_export_s": statistics.median(one["measure"] for one in rest),
        "training_s": statistics.median(one["training"] for one in rest),
        "sweep_s": whole,
        "jobs": repeats + 1,
        "beyond_s": (whole - sum(one["measure"] + one["training"] for one in rest)) / (repeats + 1),
        "cold_s": cold,
        "cached_s": warm,
        "baseline_cached": cached["stages"][0]["history"][0]["cached"],
    }


def newest_report(where: Path) -> Path:
    return max(where.glob("outputs/**/report.json"), key=lambda path: path.stat().st_mtime)


def run_costs(report: dict[str, Any]) -> dict[str, float]:
    measure = sum(stage["values"].get("measure_seconds") or 0.0 for stage in report["stages"])
    return {"measure": measure, "training": sum(stage["seconds"] for stage in report["stages"])}


PARTS: dict[str, Callable[[], Any]] = {"startup": startup, "training": training, "extra_run": extra_run}


def table(results: dict[str, Any]) -> str:
    rows = ["| what | measured | target |", "|---|---|---|"]
    if "startup" in results:
        for name, ratio in results["startup"]["ratio"].items():
            rows.append(f"| `bigopt {name}` over `python -c 'import hydra'` | {ratio:.2f}× | under 3× |")
    for model, found in results.get("training", {}).items():
        speed, accuracy = found["images_per_s"], found["accuracy"]
        rows.append(
            f"| {model}: training throughput over plain Lightning with a per-sample DataLoader | "
            f"{found['over_lightning']:.2f}× ({speed['bigopt']:.0f} against {speed['lightning']:.0f} images/s; test "
            f"accuracy {accuracy['bigopt']:.1%} against {accuracy['lightning']:.1%}) | at least 3× |"
        )
        rows.append(f"| {model}: time over a hand-written loop | {found['overhead']:+.1%} | at most +5% |")
        rows.append(
            f"| {model}: peak memory over a hand-written loop | {found['memory_overhead']:+.1%} "
            f"({found['peak_mb']['bigopt']:.0f} against {found['peak_mb']['hand']:.0f} MB, of which training takes "
            f"{found['training_mb']['bigopt']:.0f} and {found['training_mb']['hand']:.0f}, the rest imports and data) "
            "| at most +10% |"
        )
    if "extra_run" in results:
        more = results["extra_run"]
        rows.append(f"| one more run in a sweep beyond training and measuring | {more['beyond_s']:.2f} s | |")
        rows.append(f"| measuring and export of its two stages | {more['measure_and_export_s']:.2f} s | |")
        rows.append(
            f"| a second run with a cached baseline | {more['cached_s'] / more['cold_s']:.2f}× the first's time, "
            f"training {'skipped' if more['baseline_cached'] else 'repeated'} | skipped |"
        )
    return "\n".join(rows) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], help="default: all")
    parser.add_argument("--worker", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        name, model, *numbers = options.worker
        work(name, model, *(int(number) for number in numbers))
        return
    file = HERE / "results.json"
    results = json.loads(file.read_text()) if file.exists() else {}
    for part in options.parts or PARTS:
        print(part, flush=True)
        results[part] = PARTS[part]()
    results["machine"] = {"cores": os.cpu_count(), "python": platform.python_version(), "cpu": cpu()}
    file.write_text(json.dumps(results, indent=1) + "\n")
    (HERE / "table.md").write_text(table(results))
    print(table(results))


def cpu() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    flags = next((line for line in lines if line.startswith("flags")), "")
    return ", ".join(flag for flag in ("avx2", "avx512f", "avx512_bf16", "avx512_vnni", "amx_bf16") if flag in flags)


if __name__ == "__main__":
    main()
