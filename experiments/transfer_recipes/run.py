"""The transfer recipes beside what they should beat, over seeds, in paired differences.

    python experiments/transfer_recipes/run.py             # goes on where it stopped
    python experiments/transfer_recipes/run.py --table     # only rewrite table.md

Each cell is one command, judged once on the test split at its best validation epoch. Results go to results.json (one
entry a recipe, variant and seed) and table.md beside this file.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from bigopt.report.interval import shown_interval

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))
from command import Variants, Words, compare, complete, report_of  # noqa: E402

SEEDS = (0, 1, 2)
SCRATCH = (
    "dataset=fashion_mnist",
    "dataset.classes=[5,6,7,8,9]",
    "dataset.labels_per_class=100",
    "dataset.val=0.02",
    "trainer.batch_size=64",
)
"""The recipes' data and batches without their transfer; the words of each recipe's model and training are added."""
VARIANTS: Variants = {
    "vgg_conv5_concat": {
        "the recipe": ("experiment=vgg_conv5_concat",),
        "conv5_3 alone": ("experiment=vgg_conv5_concat", "transfer.layers=[features.relu5_3]"),
        "from scratch": (*SCRATCH, "model=vgg", "trainer.max_epochs=30"),
    },
    "shared_conv1_conv5": {
        "the recipe": ("experiment=shared_conv1_conv5",),
        "from scratch": (*SCRATCH, "model=vgg", "model.hidden=[128]", "trainer.max_epochs=30"),
    },
    "freeze_all_but_last": {
        "the recipe": ("experiment=freeze_all_but_last",),
        "nothing frozen": ("experiment=freeze_all_but_last", "transfer.trainable_blocks=0", "optimizer.lr=1.0e-2"),
        "from scratch": (*SCRATCH, "model=resnet", "model.width=16", "trainer.max_epochs=60", "optimizer.lr=1.0e-2"),
    },
}
"""What each recipe is beside; the last one is what all are compared with."""


def run(words: Words, seed: int) -> dict[str, float]:
    """One command: validation and test accuracy, and the seconds of an epoch."""
    cache = Path(".bigopt/transfer_recipes").resolve()
    report = report_of([*words, f"seed={seed}", "measure=quick", "tracking=none", f"cache={cache}"])
    row = report["stages"][0]
    epochs = row["history"][-1]["epochs"]
    return {
        "val": row["metrics"]["val/accuracy"],
        "test": report["test"]["final"]["test/accuracy"],
        "epoch_s": min(epoch["seconds"] for epoch in epochs),
    }


def table(results: dict[str, Any]) -> str:
    """One line a recipe and variant."""
    lines = [
        "| recipe | trained | test accuracy, % | against from scratch, points | fastest epoch, s |",
        "|---|---|---|---|---|",
    ]
    for recipe in VARIANTS:
        known, seeds = complete(results, VARIANTS, recipe, SEEDS)
        if not seeds:
            continue
        base = [known["from scratch"][seed]["test"] for seed in seeds]
        for variant, cells in known.items():
            tests = [cells[seed]["test"] for seed in seeds]
            gains = [one - other for one, other in zip(tests, base, strict=True)]
            shown = "" if variant == "from scratch" else shown_interval(gains, scale=100, sign=True)
            fastest = min(cells[seed]["epoch_s"] for seed in seeds)
            lines.append(f"| `{recipe}` | {variant} | {shown_interval(tests, scale=100)} | {shown} | {fastest:.3f} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    compare(__doc__, HERE, VARIANTS, SEEDS, run, table)
