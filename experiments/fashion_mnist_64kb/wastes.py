"""Where the time of fashion_mnist_64kb goes, and what the wastes that were removed had cost: ratios in one run.

    python experiments/fashion_mnist_64kb/wastes.py     # about ten minutes on one core; wastes.json and wastes.md

Each line is a pair of short runs that differ in one setting, alternating; the seconds of the last epoch count.
"""

from __future__ import annotations

import json
import statistics
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))
from command import report_of  # noqa: E402

ROUNDS = 3
COMMON = (
    "experiment=fashion_mnist_64kb",
    "dataset.limit=4000",
    "dataset.val=0.01",
    "tracking=none",
    "measure=quick",
    "trainer.max_epochs=1",
    "trainer.compile=on",
    "budget.max_latency_ms=null",
)
PRUNE = ("compression=[channel_pruning]", "compression.channel_pruning.recover.epochs=3")
ROUND = ("compression=[quantization]", "model.channels=[16,32,80]", "compression.quantization.recover.epochs=3")
PAIRS: dict[str, tuple[tuple[str, ...], str, str]] = {
    "recovery: the large net asked about every batch, or once about each copy": (
        PRUNE,
        "augment.copies=0",
        "augment.copies=1",
    ),
    "4-bit training: rounding eager, or as compiled loops": (ROUND, "trainer.compile=off", "trainer.compile=on"),
    "recovery: eager, or compiled": ((*PRUNE, "augment.copies=1"), "trainer.compile=off", "trainer.compile=on"),
    "recovery: fp32, or bf16": ((*PRUNE, "augment.copies=1"), "trainer.precision=fp32", "trainer.precision=bf16"),
}
"""What is compared: words of both, the one before, the one after."""


def seconds(words: tuple[str, ...]) -> float:
    """Seconds of the last epoch of a run's last fit."""
    report = report_of([*COMMON, *words, f"cache={Path.cwd() / '.bigopt' / 'wastes'}"])
    return float(report["stages"][-1]["history"][-1]["epochs"][-1]["seconds"])


def main() -> None:
    found: dict[str, Any] = {}
    for name, (words, before, after) in PAIRS.items():
        pairs = [(seconds((*words, before)), seconds((*words, after))) for _ in range(ROUNDS)]
        ratio = statistics.median(one / other for one, other in pairs)
        found[name] = {"before": before, "after": after, "seconds": pairs, "ratio": round(ratio, 2)}
        print(name, found[name], flush=True)
        (HERE / "wastes.json").write_text(json.dumps(found, indent=1) + "\n")
    lines = ["| an epoch of | before over after |", "|---|---|"]
    lines += [f"| {name} | {one['ratio']:.2f}× |" for name, one in found.items()]
    (HERE / "wastes.md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
