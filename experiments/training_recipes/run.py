"""The training recipes with and without what they are about, over seeds, in paired differences.

    python experiments/training_recipes/run.py             # a quarter of an hour; goes on where it stopped
    python experiments/training_recipes/run.py --table     # only rewrite table.md

Results go to results.json (one entry a recipe, variant and seed) and table.md beside this file.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from bigopt.report.interval import shown_interval

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))
from command import report_of  # noqa: E402

SEEDS = (0, 1, 2)
VARIANTS: dict[str, dict[str, tuple[str, ...]]] = {
    "crop_flip_scale": {"with": (), "without": ("augment=none",)},
    "sgd_decay": {"with": (), "without": ("scheduler=constant",)},
    "batch_norm": {"with": (), "without": ("norm=remove", "compression=[channel_pruning]")},
}
"""What each recipe is beside: further words of its command."""

ROWS = {
    "baseline": "as trained",
    "channel_pruning": "30% of the channels removed, no recovery",
    "reestimate_norm": "then norms re-estimated",
}


def run(recipe: str, words: tuple[str, ...], seed: int) -> dict[str, Any]:
    """One command: of each stage the validation accuracy, and its mean over corruptions."""
    command = [f"experiment={recipe}", f"seed={seed}", "evaluate=robustness", *words]
    report = report_of([*command, "measure=quick", "tracking=none", "cache=off"])
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
        runs = {variant: results.get(recipe, {}).get(variant, {}) for variant in VARIANTS[recipe]}
        seeds = [seed for seed in map(str, SEEDS) if all(seed in one for one in runs.values())]
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--table", action="store_true")
    only_table = parser.parse_args().table
    file = HERE / "results.json"
    results: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {}
    for seed in () if only_table else SEEDS:
        for recipe, variants in VARIANTS.items():
            for variant, words in variants.items():
                known = results.setdefault(recipe, {}).setdefault(variant, {})
                if str(seed) not in known:
                    known[str(seed)] = run(recipe, words, seed)
                    print(recipe, variant, seed, json.dumps(known[str(seed)]), flush=True)
                    file.write_text(json.dumps(results, indent=1) + "\n")
    (HERE / "table.md").write_text(table(results))
    print(table(results))


if __name__ == "__main__":
    main()
