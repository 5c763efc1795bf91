"""What the installed distributions offer, from their metadata alone."""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib.metadata import Distribution, distributions
from pathlib import Path

from bigopt.registry.plugin import GROUPS, Plugin

OWN = "bigopt"
"""The distribution whose names no other can take."""


def offered() -> Iterator[Plugin]:
    """Every plugin that a distribution offers, unread: bigopt's own first, then by the distribution's name."""
    kinds = {group: kind for kind, group in GROUPS.items()}
    for distribution in sorted(_distributions(), key=lambda d: (_name(d) != OWN, _name(d))):
        lines = list(_lines(distribution))
        if not lines:
            continue
        title, version = _metadata(distribution, "Name", "Version")  # parsed once, however many plugins there are
        for group, name, target in lines:
            yield Plugin(
                kind=kinds[group],
                name=name,
                target=target,
                distribution=title or _name(distribution),
                version=version,
            )


def _distributions() -> Iterator[Distribution]:
    """Distributions that offer plugins; of two with one name, the first on the path counts, as for imports."""
    seen = set()
    for distribution in distributions():
        name = _name(distribution)
        if name not in seen:
            seen.add(name)
            yield distribution


def _name(distribution: Distribution) -> str:
    """Normalised name, from the folder's where that tells: parsing all metadata would cost a tenth of a second."""
    folder: Path | None = getattr(distribution, "_path", None)
    stem, dot, ending = folder.name.rpartition(".") if folder is not None else ("", "", "")
    name = stem.partition("-")[0] if dot and ending in ("dist-info", "egg-info") else ""
    return re.sub(r"[-_.]+", "-", name or _metadata(distribution, "Name")[0]).lower()


def _metadata(distribution: Distribution, *fields: str) -> list[str]:
    try:
        metadata = distribution.metadata
        return [str(metadata[field] or "") for field in fields]
    except Exception:  # metadata of a foreign distribution that cannot be parsed
        return [""] * len(fields)


def _lines(distribution: Distribution) -> Iterator[tuple[str, str, str]]:
    """Group, name and target of each entry point of ours; a line without ``=`` gives a plugin without a target."""
    try:
        text = distribution.read_text("entry_points.txt") or ""
    except (OSError, ValueError):
        return
    group = ""
    for line in map(str.strip, text.splitlines()):
        if line.startswith("["):
            group = line.strip("[] ")
        elif group in GROUPS.values() and line and not line.startswith(("#", ";")):
            name, _, target = line.partition("=")
            yield group, name.strip(), target.partition("[")[0].strip()
