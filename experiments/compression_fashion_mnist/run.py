"""Every compression plugin at three strengths, stacks and controls, from one trained ResNet on Fashion-MNIST.

    python experiments/compression_fashion_mnist/run.py              # both widths; about an hour on two cores
    python experiments/compression_fashion_mnist/run.py --width 16   # one of them
    python experiments/compression_fashion_mnist/run.py --time       # only latencies and the table, on a quiet machine

Finished cells are kept in results.json and not repeated; the ONNX files lie under .bigopt/compression_fashion_mnist.
Choices and drops are made on validation images; the test split is read for the stacks alone.
"""

from __future__ import annotations

import argparse
import gc
import json
import multiprocessing
import shutil
from pathlib import Path
from typing import Any

from cells import SIZES, Cell, cells

HERE = Path(__file__).parent
RESULTS = HERE / "results.json"
WORK = Path(".bigopt") / "compression_fashion_mnist"
KEPT = ("metrics", "drop", "drop_interval", "parameters", "nonzero", "macs", "bytes", "bytes_zip")


def load() -> list[dict[str, Any]]:
    return json.loads(RESULTS.read_text()) if RESULTS.is_file() else []


def add(entry: dict[str, Any]) -> None:
    """Adds one entry; other processes may do so at the same time."""
    from bigopt.store import lock, write_json

    with lock(WORK / "lock"):
        write_json(RESULTS, [*load(), entry])


def place(width: int, seed: int, name: str) -> Path:
    """Where a cell's files are kept."""
    return WORK / f"width{width}-seed{seed}" / "".join(one if one.isalnum() else "_" for one in name)


def run(width: int, seed: int, cell: Cell) -> dict[str, Any]:
    """One command in this process: what its report says of the last row, the baseline and the control."""
    from bigopt.cli.main import main
    from bigopt.pipeline import execute

    size, folder = SIZES[width], place(width, seed, cell.name)
    shutil.rmtree(folder, ignore_errors=True)
    words = [
        "model=resnet",
        f"model.width={width}",
        "dataset=fashion_mnist",
        f"dataset.limit={size.images}",
        f"dataset.val={size.judged / 60_000}",
        f"trainer.max_epochs={size.epochs}",
        "trainer.compile=off",
        "trainer.batch_size=32",
        "optimizer.lr=2e-3",
        "measure.latency=false",
        f"seed={seed}",
        "tracking=none",
        f"cache={WORK.resolve() / 'cache'}",
        f"hydra.run.dir={folder}",
    ]
    code = main(
        words + cell.overrides(),
        lambda checked, *args, **options: execute(checked, *args, **(options | {"test": cell.family == "stack"})),
    )
    if code:
        raise SystemExit(f"{cell.name}: exit code {code}")
    report = json.loads((folder / "report.json").read_text())
    rows = {row["name"]: row for row in report["stages"]}
    shutil.copy(folder / "stages" / "baseline" / "model.onnx", folder.parent / "baseline.onnx")
    for path in folder.glob("*"):
        if path.suffix not in (".onnx", ".json"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    gc.collect()
    return {
        "width": width,
        "seed": seed,
        "family": cell.family,
        "label": cell.label,
        "last": {key: report["stages"][-1][key] for key in KEPT},
        "baseline": {key: rows["baseline"][key] for key in KEPT},
        "control": rows["control"]["metrics"]["val/accuracy"] if "control" in rows else None,
        "test": report["test"],
        "epochs": sum(row["recovery_epochs"] for row in report["stages"] if row["name"] != "control"),
        "seconds": sum(row["seconds"] for row in report["stages"] if row["name"] not in ("baseline", "control")),
    }


def work(width: int) -> None:
    """All cells of a width that are not there yet."""
    for seed in SIZES[width].seeds:
        for cell in cells(width):
            known = {(one["width"], one["seed"], one["family"], one["label"]) for one in load()}
            if (width, seed, cell.family, cell.label) not in known:
                print(f"width {width}, seed {seed}: {cell.name}", flush=True)
                add(run(width, seed, cell))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--width", type=int, choices=list(SIZES), action="append", help="default: both at once")
    parser.add_argument("--time", action="store_true", help="only latencies and the table")
    chosen = parser.parse_args()
    WORK.mkdir(parents=True, exist_ok=True)
    if not chosen.time:
        spawn = multiprocessing.get_context("spawn")
        processes = [spawn.Process(target=work, args=(width,)) for width in chosen.width or SIZES]
        for process in processes:
            process.start()
        for process in processes:
            process.join()
        if any(process.exitcode for process in processes):
            raise SystemExit("a width failed; the same command goes on where it stopped")
    from report import report
    from timing import times

    times(chosen.width or list(SIZES))
    report()


if __name__ == "__main__":
    main()
