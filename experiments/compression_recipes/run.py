"""The compression recipes, each over seeds, with the control beside it.

    python experiments/compression_recipes/run.py             # all, about an hour of one core
    python experiments/compression_recipes/run.py relu_to_cubic

Results go to results.json (one entry a recipe and seed; finished ones are not repeated) and table.md beside this file.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from pathlib import Path
from typing import Any

from bigopt.report.interval import shown_interval

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))
from command import report_of  # noqa: E402

RECIPES = (
    "alexnet_prune_kernels",
    "inception_prune_modules",
    "alexnet_8bit",
    "alexnet_4bit",
    "relu_to_quadratic",
    "relu_to_cubic",
    "relu_to_staircase",
)
SEEDS = (0, 1, 2)


def run(recipe: str, seed: int) -> dict[str, Any]:
    """One recipe with one seed: what its report says."""
    report = report_of([f"experiment={recipe}", f"seed={seed}", "tracking=none", "cache=off"])
    rows = {row["name"]: row for row in report["stages"]}
    last = report["stages"][-1]
    best = max(rows[name]["metrics"]["val/accuracy"] for name in ("baseline", "control") if name in rows)
    return {
        "recipe": recipe,
        "seed": seed,
        "baseline": rows["baseline"]["metrics"]["val/accuracy"],
        "control": rows["control"]["metrics"]["val/accuracy"] if "control" in rows else None,
        "final": last["metrics"]["val/accuracy"],
        "drop": best - last["metrics"]["val/accuracy"],
        "test": report["test"]["final"]["test/accuracy"],
        "size_ratio": last["size_ratio"],
        "macs_ratio": rows["baseline"]["macs"] / last["macs"],
        "speedup_1": last["speedup"]["batch_1"],
        "speedup_256": last["speedup"]["batch_256"],
    }


def table(results: list[dict[str, Any]]) -> str:
    """One line a recipe."""
    lines = [
        "| recipe | baseline, % | control, % | result, % | drop against the better, points | smaller | MACs | "
        "faster, batch 1 | faster, batch 256 |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for recipe in RECIPES:
        ones = [one for one in results if one["recipe"] == recipe]
        if not ones:
            continue
        controls = [one["control"] for one in ones if one["control"] is not None]
        ratios = [
            f"{statistics.mean(one[key] for one in ones):.2f}×"
            for key in ("size_ratio", "macs_ratio", "speedup_1", "speedup_256")
        ]
        cells = [
            f"`{recipe}`",
            shown_interval([one["baseline"] for one in ones], scale=100),
            shown_interval(controls, scale=100) if controls else "",
            shown_interval([one["final"] for one in ones], scale=100),
            shown_interval([one["drop"] for one in ones], scale=100),
            *ratios,
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("recipes", nargs="*", choices=[*RECIPES, []], help="default: all")
    chosen = parser.parse_args().recipes or RECIPES
    file = HERE / "results.json"
    results: list[dict[str, Any]] = json.loads(file.read_text()) if file.exists() else []
    for seed in SEEDS:
        for recipe in chosen:
            if any(one["recipe"] == recipe and one["seed"] == seed for one in results):
                continue
            results.append(run(recipe, seed))
            print(json.dumps(results[-1]), flush=True)
            file.write_text(json.dumps(results, indent=1) + "\n")
            (HERE / "table.md").write_text(table(results))
    print(table(results))


if __name__ == "__main__":
    main()
