"""What Hydra's override grammar refuses although people write it: ``choice(null,1)``."""

from __future__ import annotations

import re


def simple_choices(line: str) -> str | None:
    """``key=a,b`` for ``key=choice(a,b)``, which takes ``null`` too; None for anything else."""
    found = re.fullmatch(r"([^=]+)=\s*choice\((.+)\)\s*", line, re.DOTALL)
    return f"{found[1]}={found[2]}" if found else None


def empty_choice(line: str) -> str | None:
    """What is wrong with ``key=choice()``; None for anything else."""
    found = re.fullmatch(r"([^=]+)=\s*choice\(\s*\)\s*", line)
    return f"{found[1]}: got an empty choice, expected at least one value" if found else None
