"""LeNets made sparse by five methods: the architectures that they find, and the errors, over seeds.

    python experiments/l0_lenet/run.py                                      # everything; goes on where it stopped
    python experiments/l0_lenet/run.py --models mlp --seeds 0               # part of it; parts can run side by side
    python experiments/l0_lenet/run.py --dataset mnist --root <folder>      # the papers' data, from their IDX files
    python experiments/l0_lenet/run.py --report                             # only table and picture, from the results

Every cell is one ``bigopt`` command (``--show`` prints them), judged once on the test split. Cells of a model and a
seed share their baseline through the stage cache. Results go to results.json after every cell (of another dataset to
results_<dataset>.json, and so on).
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import json
import os
import tempfile
from pathlib import Path
from typing import Any

from report import CELLS, HERE, architecture, name_of, write

SIZES: dict[str, dict[str, int]] = {
    "mlp": {"limit": 20000, "epochs": 4, "batch": 128},
    "lenet5": {"limit": 10000, "epochs": 4, "batch": 64},
}
"""Training samples and epochs of the baseline; each method, and the control, trains for as many epochs again."""


def words(model: str, cell: str, seed: int, dataset: str, root: str | None) -> list[str]:
    """The command of one cell, without its folders."""
    size = SIZES[model]
    plugin, settings = CELLS[cell]
    half = size["epochs"] // 2
    # These two train under their penalty first, and recover afterwards; the others do all at once.
    split = plugin in ("structured_sparsity", "gaussian_constraint")
    own = {**settings, "recover.epochs": size["epochs"] - half if split else size["epochs"]}
    own |= {"epochs": half} if split else {}
    return [
        f"model={model}",
        f"dataset={dataset}",
        *([f"dataset.root={root}"] if root else []),
        f"dataset.limit={size['limit']}",
        f"compression=[{plugin}]",
        *(f"compression.{plugin}.{key}={value}" for key, value in own.items()),
        f"trainer.max_epochs={size['epochs']}",
        f"trainer.batch_size={size['batch']}",
        "trainer.precision=fp32",
        "trainer.compile=off",
        "measure.latency=false",
        "tracking=none",
        f"seed={seed}",
        f"control={'true' if cell == next(iter(CELLS)) else 'false'}",
    ]


def run(command: list[str], cache: Path) -> dict[str, Any]:
    """Runs one command in this process; what its report and its weights say."""
    from bigopt.cli.main import main

    with tempfile.TemporaryDirectory() as folder:
        with (Path(folder) / "log").open("w") as log, contextlib.redirect_stdout(log):
            code = main([*command, f"cache={cache}", f"hydra.run.dir={folder}/run"])
        if code:
            raise SystemExit(f"exit code {code}: bigopt {' '.join(command)}")
        report = json.loads((Path(folder) / "run" / "report.json").read_text())
        found = architecture(Path(folder) / "run" / "model.safetensors")
    rows = {row["name"]: row for row in report["stages"]}
    last = report["stages"][-1]
    figures = {name: 100 * (1 - value["test/accuracy"]) for name, value in report["test"].items() if is_split(value)}
    kept = ("parameters", "nonzero", "macs", "bytes", "bytes_zip", "seconds")
    dense = {name: rows["baseline"][name] for name in kept}
    return {**found, "error": figures, **{name: last[name] for name in kept}, "dense": dense}


def is_split(value: Any) -> bool:
    """Whether this entry of a report's ``test`` holds metrics."""
    return isinstance(value, dict) and "test/accuracy" in value


@contextlib.contextmanager
def held(path: Path) -> Any:
    """The results, for changing; other processes wait."""
    lock = Path(tempfile.gettempdir()) / f"bigopt_{path.stem}_l0_lenet.lock"
    with lock.open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        results = json.loads(path.read_text()) if path.is_file() else {}
        yield results
        beside = path.with_suffix(".part")
        beside.write_text(json.dumps(results, indent=1, sort_keys=True) + "\n")
        os.replace(beside, path)


def main() -> None:
    """Runs what is not in the results yet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="*", choices=[*SIZES], default=[*SIZES])
    parser.add_argument("--seeds", nargs="*", type=int, default=[0, 1, 2])
    parser.add_argument("--cells", nargs="*", choices=[*CELLS], default=[*CELLS])
    parser.add_argument("--dataset", choices=("fashion_mnist", "mnist"), default="fashion_mnist")
    parser.add_argument("--root", help="folder of the dataset's IDX files")
    parser.add_argument("--cache", type=Path, default=Path(".bigopt/cache").resolve())
    parser.add_argument("--results", type=Path, help="where else to keep the results; no table is written then")
    parser.add_argument("--report", action="store_true")
    parser.add_argument("--show", action="store_true")
    asked = parser.parse_args()
    path = asked.results or HERE / f"{name_of('results', asked.dataset)}.json"
    for seed in [] if asked.report else asked.seeds:
        for model in asked.models:
            for cell in asked.cells:
                command = words(model, cell, seed, asked.dataset, asked.root)
                key = f"{model}/{cell}/{seed}"
                if asked.show:
                    print("bigopt", *command)
                elif not path.is_file() or key not in json.loads(path.read_text()):
                    found = run(command, asked.cache)
                    with held(path) as results:
                        results[key] = found
                    print(key, found["architecture"], found["left"], found["error"], found["seconds"], flush=True)
    if path.is_file() and not asked.show and not asked.results:
        write(json.loads(path.read_text()), asked.dataset)


if __name__ == "__main__":
    main()
