"""Distributions that consist of a metadata folder and a few files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from textwrap import dedent


def install(
    folder: Path,
    name: str,
    points: Mapping[str, Mapping[str, str]],
    files: Mapping[str, str],
    version: str = "1.0",
    metadata: str = "",
) -> Path:
    """Lays a distribution out in a folder, as pip would.

    Args:
        folder: where; put it on ``sys.path``.
        name: the distribution's name.
        points: targets by entry-point name, by kind.
        files: source by path.
        version: its version.
        metadata: further lines of METADATA.
    """
    info = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{metadata}")
    lines = []
    for kind, targets in points.items():
        lines += [f"[bigopt.{kind}]", *(f"{point} = {target}" for point, target in targets.items())]
    (info / "entry_points.txt").write_text("\n".join(lines) + "\n")
    for path, text in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(dedent(text))
    return folder
