"""The console script: help, version and subcommands before Hydra is loaded, everything else through Hydra."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any

SUBCOMMANDS = {
    "plugins": "list installed models, datasets and methods with their arguments",
    "doctor": "check versions, hardware, data sets, tracking and storage",
    "ui": "open the MLflow pages of this folder on 127.0.0.1",
    "report": "show a run folder's table; --html renders its page again, --sync sends what tracking missed",
    "new-plugin": "write the skeleton of a plugin of your own",
}

HELP = """\
bigopt takes a model and a dataset and gives back a smaller, faster or better model, with the evidence.

usage: bigopt [key=value ...] [-m]     run, or sweep over lists of values
       bigopt <subcommand> [options]

examples:
  bigopt experiment=demo
  bigopt model=resnet dataset=fashion_mnist 'compression=[channel_pruning,quantization]' trainer.max_epochs=3
  bigopt 'compression=[channel_pruning]' compression.channel_pruning.ratio=0.7 budget.max_drop=0.01
  bigopt -m seed=0,1,2 model=lenet5,resnet
  bigopt tuner=bayesian 'optimizer.lr=tag(log,interval(1e-4,1e-1))' hydra.sweeper.n_trials=20
  bigopt resume=<run folder>

subcommands:
{subcommands}

config groups (group=choice, then group.argument=value):
{groups}

other keys: seed, objective={{val/accuracy:max,bytes:min}}, control, cache, resume; `bigopt --cfg job` shows them all.
Hydra's flags work: -m, --cfg job, --info, --config-dir DIR, --resolve, --hydra-help.
exit codes: 0 done, 1 the run failed, 2 wrong request, 3 budget not met, 130 and 143 interrupted.
"""

Execute = Callable[..., dict[str, Any]]


def main(argv: Sequence[str] | None = None, execute: Execute | None = None) -> int:
    """Runs one command line.

    Args:
        argv: the words after the program's name; None takes the process's own.
        execute: what runs a checked configuration; None means ``bigopt.pipeline.execute``.

    Returns:
        the exit code: 0 done, 1 failed, 2 wrong request, 3 budget not met, 130 and 143 interrupted.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    first = words[0] if words else ""
    if first == "help" and len(words) > 1 and words[1] in SUBCOMMANDS:
        words, first = [words[1], "--help"], words[1]
    if first == "help":
        return _help()
    if first and "=" not in first and first[0] not in "-+~":
        return _subcommand(first, words[1:])
    if "--help" in words or "-h" in words:
        return _help()
    if "--version" in words:
        from importlib.metadata import version

        print(f"bigopt {version('bigopt')}")
        return 0
    from bigopt.cli.run import run

    return run(words, execute)


def _subcommand(name: str, words: Sequence[str]) -> int:
    if name not in SUBCOMMANDS:
        from difflib import get_close_matches

        near = get_close_matches(name, SUBCOMMANDS, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        known = ", ".join(SUBCOMMANDS)
        print(f"bigopt: {name}: no such subcommand, expected {known}, or an override as seed=1{hint}", file=sys.stderr)
        return 2
    from bigopt.cli.run import guarded

    module = import_module(f"bigopt.cli.{name.replace('-', '_')}")
    return guarded(lambda: int(module.main(list(words))))


def _help() -> int:
    from shutil import get_terminal_size

    width = max(get_terminal_size().columns, 60)
    groups = {group: ", ".join(names) for group, names in _groups().items()}
    print(HELP.format(subcommands=_table(SUBCOMMANDS, width), groups=_table(groups, width)), end="")
    return 0


def _groups() -> dict[str, list[str]]:
    """Choices of every group, from file names and entry points alone: nothing is imported or read."""
    from importlib.metadata import entry_points
    from pathlib import Path

    from bigopt.config.groups import PLUGINS, SLOTS

    conf = Path(__file__).parent.parent / "conf"
    found = {
        folder.name: {file.stem for file in folder.glob("*.yaml")}
        for folder in conf.iterdir()
        if folder.is_dir() and folder.name != "hydra"
    }
    for group, kind in PLUGINS.items():
        if group not in SLOTS:
            found.setdefault(group, set()).update(point.name for point in entry_points(group=f"bigopt.{kind}"))
    return {group: sorted(names) for group, names in sorted(found.items()) if names}


def _table(rows: dict[str, str], width: int) -> str:
    from textwrap import fill

    left = max(map(len, rows)) + 4
    return "\n".join(
        fill(text, width, initial_indent=f"  {name}".ljust(left), subsequent_indent=" " * left)
        for name, text in rows.items()
    )


if __name__ == "__main__":
    raise SystemExit(main())
