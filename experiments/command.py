"""What experiments need to run bigopt's command, read what it found, and compare variants of recipes over seeds."""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

Words = tuple[str, ...]
Variants = Mapping[str, Mapping[str, Words]]
"""Of each recipe, the words of the command that each of its variants is."""


def report_of(words: Sequence[str]) -> dict[str, Any]:
    """The report of ``bigopt <words>``, run in this process in a temporary folder.

    Raises:
        SystemExit: the command failed; its exit code is said.
    """
    from bigopt.cli.main import main

    with tempfile.TemporaryDirectory() as folder:
        if code := main([*words, f"hydra.run.dir={folder}/run"]):
            raise SystemExit(f"bigopt {' '.join(words)}: exit code {code}")
        report: dict[str, Any] = json.loads((Path(folder) / "run" / "report.json").read_text())
    return report


def compare(
    about: str | None,
    folder: Path,
    variants: Variants,
    seeds: Sequence[int],
    run: Callable[[Words, int], dict[str, Any]],
    table: Callable[[dict[str, Any]], str],
) -> None:
    """The command line of a comparison: runs what is missing, and writes results.json after each run and table.md.

    Args:
        about: the experiment's docstring, whose first line `--help` shows.
        folder: where both files are.
        variants: what is compared.
        seeds: a seed of all variants is run before the next one.
        run: one variant's words with one seed, to what is kept of it.
        table: what is kept, by recipe, variant and seed, as Markdown.
    """
    from bigopt.store import write_atomic

    parser = argparse.ArgumentParser(description=about.splitlines()[0] if about else None)
    parser.add_argument("--table", action="store_true", help="only rewrite table.md")
    only_table = parser.parse_args().table
    file = folder / "results.json"
    results: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {}
    for seed in () if only_table else seeds:
        for recipe, each in variants.items():
            for variant, words in each.items():
                known = results.setdefault(recipe, {}).setdefault(variant, {})
                if str(seed) not in known:
                    known[str(seed)] = run(words, seed)
                    print(recipe, variant, seed, json.dumps(known[str(seed)]), flush=True)
                    write_atomic(file, json.dumps(results, indent=1) + "\n")
    (folder / "table.md").write_text(table(results))
    print(table(results))


def complete(
    results: dict[str, Any], variants: Variants, recipe: str, seeds: Sequence[int]
) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """What is kept of a recipe, by variant and seed, and the seeds that all of its variants have."""
    known = {variant: results.get(recipe, {}).get(variant, {}) for variant in variants[recipe]}
    return known, [seed for seed in map(str, seeds) if all(seed in one for one in known.values())]
