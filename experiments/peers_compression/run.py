"""The same trained model through bigopt, torch-pruning with ONNX Runtime's quantizer, Olive and NNCF.

    python experiments/peers_compression/run.py --peers <python of the peers' environment>   # goes on where it stopped
    python experiments/peers_compression/run.py --table                                      # only table and picture

The folder named by --work keeps each finished step; results.json gets a seed once all of its files are measured.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))
PEERS = HERE / "peers"
RESULTS = HERE / "results.json"

EPOCHS, RECOVERY, FINE = 4, 3, 1
"""Of the model, after pruning, and with rounding (bigopt, NNCF) or on in float (the two that only round at the end)."""
RATIO, ROUNDS = 0.5, 50
ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "CUDA_VISIBLE_DEVICES": "",
    "NNCF_EXTENSION_LOAD_TIMEOUT": "0",  # it compiles operators once, with a C++ compiler
    "NNCF_CI": "1",  # these two: no telemetry
    "OLIVE_DISABLE_TELEMETRY": "1",
}

SETTINGS = (
    "model=resnet model.width=16 dataset=fashion_mnist dataset.limit=12000 optimizer.lr=3e-3 "
    "trainer.precision=fp32 trainer.compile=off trainer.threads=1 "
    "measure.latency=false tracking=none"
).split()
"""What all runs of bigopt have in common."""
QUANTIZE = f"mode=qat recover.epochs={FINE} recover.teacher=baseline".split()
PRUNE = f"ratio={RATIO} recover.epochs={RECOVERY}".split()


def settings(step: str, values: list[str]) -> list[str]:
    return [f"compression.{step}.{value}" for value in values]


def bigopt(bits: int, prune: bool) -> list[str]:
    """What the user says beside the model, its weights and the data."""
    steps = "[channel_pruning,quantization]" if prune else "[quantization]"
    pruning = settings("channel_pruning", PRUNE) if prune else []
    return [f"compression={steps}", *pruning, *settings("quantization", [f"bits={bits}", *QUANTIZE])]


BIGOPT = {
    "bigopt int8": bigopt(8, False),
    "bigopt int4": bigopt(4, False),
    "bigopt prune+int8": bigopt(8, True),
    "bigopt prune+int4": bigopt(4, True),
}


class Steps:
    """Runs commands whose outputs are not there yet, and remembers the processor seconds of each.

    Args:
        folder: of one seed.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.file = folder / "seconds.json"
        self.seconds: dict[str, float] = json.loads(self.file.read_text()) if self.file.is_file() else {}

    def __call__(self, name: str, command: list[str]) -> float:
        """Processor seconds of the step, which is only run if it has not been."""
        if name not in self.seconds:
            start, wall = _children(), time.perf_counter()
            log = self.folder / f"{name.replace(' ', '_')}.log"
            with log.open("w") as out:
                environment = {**os.environ, **ENVIRONMENT}
                done = subprocess.run(command, cwd=self.folder, env=environment, stdout=out, stderr=subprocess.STDOUT)
            if done.returncode:
                raise SystemExit(f"{name} failed; the end of {log}:\n{log.read_text()[-2000:]}")
            self.seconds[name] = round(_children() - start, 1)
            self.file.write_text(json.dumps(self.seconds, indent=1))
            print(
                f"{self.folder.name}: {name}: {self.seconds[name]} s, {time.perf_counter() - wall:.0f} s passed",
                flush=True,
            )
        return self.seconds[name]


def _children() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def make_files(seed: int, folder: Path, peers: str) -> tuple[dict[str, Path], dict[str, float]]:
    """Everything that is compared, as ONNX files, and the processor seconds behind each."""
    steps, files, seconds = Steps(folder), {}, {}
    common = [*SETTINGS, f"seed={seed}", "cache=off"]

    def run_bigopt(name: str, more: list[str]) -> float:
        out = folder / name.replace(" ", "_")
        files[name] = out / "model.onnx"
        return steps(name, [sys.executable, "-m", "bigopt", *common, *more, f"hydra.run.dir={out}"])

    seconds["baseline"] = run_bigopt("baseline", [f"trainer.max_epochs={EPOCHS}"])
    write_data(seed, folder)

    def script(name: str, step: str, *arguments: Any) -> float:
        return steps(step, [peers, str(PEERS / f"{name}.py"), *map(str, arguments), str(seed)])

    pruned = folder / "pruned.pt"
    pruning = script("prune", "prune", folder, folder / "baseline", pruned, RATIO, RECOVERY)
    for point, start, before in (("int8", folder / "baseline", 0.0), ("prune+int8", pruned, pruning)):
        for tool in ("by hand", "Olive", "NNCF"):
            files[f"{tool} {point}"] = folder / f"{tool} {point}.onnx".replace(" ", "_")
        out = files[f"by hand {point}"]
        took = script("by_hand", f"by hand {point}", folder, start, out, FINE)
        seconds[f"by hand {point}"] = before + took
        arguments = (folder, out.with_suffix(".float.onnx"), files[f"Olive {point}"])
        seconds[f"Olive {point}"] = before + took + script("olive_int8", f"Olive {point}", *arguments)
        nncf = script("nncf_qat", f"NNCF {point}", folder, start, files[f"NNCF {point}"], FINE)
        seconds[f"NNCF {point}"] = before + nncf
    for name, more in BIGOPT.items():
        seconds[name] = run_bigopt(name, [f"model.weights={folder / 'baseline'}", "trainer.max_epochs=0", *more])
    return files, seconds


def data_of(seed: int) -> Any:
    from bigopt import registry

    return registry.build("datasets", "fashion_mnist", {"limit": 12000}, {"seed": seed})


def write_data(seed: int, folder: Path) -> None:
    """The training samples for the peers: the very ones that bigopt trains on."""
    import numpy as np
    import torch

    if not (folder / "train.npz").is_file():
        train = data_of(seed).train
        x = (train.take(torch.arange(len(train))) * 255).round().to(torch.uint8)
        np.savez(folder / "train.npz", x=x.numpy(), y=train.y.numpy())


def judge(seed: int, files: dict[str, Path], seconds: dict[str, float], folder: Path) -> dict[str, Any]:
    """Accuracy, bytes, fused operators and paired latency of all files, in this process."""
    import torch

    from bigopt.measure import latency_rounds, predict_onnx

    data = data_of(seed)
    rows: dict[str, Any] = {}
    stripped: dict[str, Path] = {}
    for name, file in files.items():
        stripped[name] = strip(file, folder / "stripped" / f"{name.replace(' ', '_')}.onnx")
        rows[name] = {"bytes": stripped[name].stat().st_size, "seconds": round(seconds[name], 1)}
        rows[name] |= {"operators": operators(stripped[name])}
        for split, part in (("val", data.val), ("test", data.read_test())):
            hits = predict_onnx(stripped[name], part, 500).argmax(1) == part.y
            rows[name][split] = hits.double().mean().item()
    example = data.val.take(torch.arange(256))
    for batch, rounds in latency_rounds(stripped, example, (1, 256), repeats=ROUNDS, limit=20.0).items():
        for name in files:
            rows[name][f"ms_{batch}"] = rounds.percentiles(name)["p50"]
            rows[name][f"speedup_{batch}"] = rounds.speedup(name, "baseline")
    return rows


def strip(file: Path, to: Path) -> Path:
    """The file without what its exporter noted, bigopt's own way, for every tool."""
    import onnx

    from bigopt.measure._tidy import tidy

    to.parent.mkdir(exist_ok=True)
    model = tidy(onnx.load(file))
    to.write_bytes(model.SerializeToString(deterministic=True))
    return to


def operators(file: Path) -> dict[str, int]:
    """What ONNX Runtime makes of the file: how many nodes of each kind are left after its own fusions."""
    import collections

    import onnx
    import onnxruntime

    options = onnxruntime.SessionOptions()
    with tempfile.TemporaryDirectory() as folder:
        options.optimized_model_filepath = str(Path(folder) / "optimized.onnx")
        options.log_severity_level = 3
        onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
        nodes = onnx.load(options.optimized_model_filepath).graph.node
    return dict(sorted(collections.Counter(node.op_type for node in nodes).items()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers", default="", help="python of the environment of requirements.txt")
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "bigopt_peers_compression")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--table", action="store_true")
    arguments = parser.parse_args()
    results: dict[str, Any] = json.loads(RESULTS.read_text()) if RESULTS.is_file() else {}
    if not arguments.table and not arguments.peers:
        parser.error("--peers is needed; README.md says how to make that environment")
    for seed in range(0 if arguments.table else arguments.seeds):
        if str(seed) not in results:
            folder = (arguments.work / str(seed)).resolve()
            folder.mkdir(parents=True, exist_ok=True)
            files, seconds = make_files(seed, folder, arguments.peers)
            results[str(seed)] = judge(seed, files, seconds, folder)
            RESULTS.write_text(json.dumps(results, indent=1) + "\n")
    from report import write

    write(results, BIGOPT)


if __name__ == "__main__":
    main()
