"""Whether the modules that the steps leave alone exist, asked before anything is trained."""

from __future__ import annotations

from collections.abc import Iterable

from torch import nn

from bigopt.vocabulary.errors import RequestError
from bigopt.vocabulary.patterns import unknown
from bigopt.vocabulary.settings import StepOptions


def check_ignored(model: nn.Module, options: Iterable[tuple[str, StepOptions]]) -> None:
    """Refuses patterns of ``ignore`` that fit no module; names below a layer may be an earlier step's doing.

    Args:
        model: before the first step.
        options: every step's name with its options.

    Raises:
        RequestError: one line for each such pattern.
    """
    names = [name for name, _ in model.named_modules()]
    leaves = [name for name, module in model.named_modules() if not any(True for _ in module.children())]
    problems = []
    for step, option in options:
        ignore = [pattern for pattern in option.ignore if not _below(pattern, leaves)]
        problems += unknown(f"compression.{step}.ignore", ignore, names)
    if problems:
        raise RequestError(problems)


def _below(pattern: str, leaves: Iterable[str]) -> bool:
    """Whether a pattern begins with a layer's name: factorised layers, say, have parts of their own."""
    return any(pattern.startswith((f"{leaf}.", f"{leaf.removeprefix('net.')}.")) for leaf in leaves)
