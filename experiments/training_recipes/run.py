"""The training recipes with and without what they are about, over seeds, in paired differences.

    python experiments/training_recipes/run.py             # a quarter of an hour; goes on where it stopped
    python experiments/training_recipes/run.py --table     # only rewrite table.md

Results go to results.json (one entry a recipe, variant and seed) and table.md beside this file.
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
VARIANTS: Variants = {
    recipe: {"with": (f"experiment={recipe}",), "without": (f"experiment={recipe}", *words)}
    for recipe, words in {
        "crop_flip_scale": ("augment=none",),
        "sgd_decay": ("scheduler=constant",),
        "batch_norm": ("norm=remove", "compression=[channel_pruning]"),
    }.items()
}
"""What each recipe is beside: further words of its command."""

ROWS = {
    "baseline": "as trained",
    "channel_pruning": "30% of the channels removed, no recovery",
    "reestimate_norm": "then norms re-estimated",
}


def run(words: Words, seed: int) -> dict[str, Any]:
    """One command: of each stage the validation accuracy, and its mean over corruptions."""
    report = report_of([*words, f"seed={seed}", "evaluate=robustness", "measure=quick", "tracking=none", "cache=off"])
    return {
        row["name"]: {"accuracy": row["metrics"]["val/accuracy"], "corrupted": row["values"]["robustness"]["mean"]}
        for row in report["stages"]
    }


def table(results: dict[str, Any]) -> str:
    """One line a recipe and stage."""
    lines = [
        "| recipe | stage | with, % | without, % | gain, points | corrupted: with, % | without, % | gain, points |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for recipe in VARIANTS:
        runs, seeds = complete(results, VARIANTS, recipe, SEEDS)
        for row, what in ROWS.items():
            if not seeds or row not in runs["with"][seeds[0]]:
                continue
            cells = [f"`{recipe}`", what]
            for measure in ("accuracy", "corrupted"):
                values = {v: [one[s][row][measure] for s in seeds if row in one[s]] for v, one in runs.items()}
                cells += [shown_interval(value, scale=100) if value else "" for value in values.values()]
                gains = [a - b for a, b in zip(values["with"], values["without"], strict=False)]
                cells.append(shown_interval(gains, scale=100, sign=True) if gains else "")
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    compare(__doc__, HERE, VARIANTS, SEEDS, run, table)
