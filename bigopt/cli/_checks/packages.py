"""Python, the packages that bigopt stands on, torchvision beside torch, and the plugins."""

from __future__ import annotations

import platform
import sys
from collections.abc import Iterable, Iterator
from importlib.metadata import PackageNotFoundError, requires, version

from bigopt.cli._checks.check import Check, ask

OLDEST = (3, 11)
_TORCHVISION = """
import json, torch, torchvision
torch.ops.torchvision.nms
print(json.dumps(torchvision.__version__))
"""


def python_check() -> Check:
    """The interpreter."""
    fits = sys.version_info >= OLDEST
    hint = "" if fits else f"bigopt needs Python {OLDEST[0]}.{OLDEST[1]} or newer"
    line = f"Python {platform.python_version()} ({platform.machine()}, {platform.system()})"
    return Check("python", "ok" if fits else "fail", line, hint, {"version": platform.python_version()})


def package_checks() -> Iterator[Check]:
    """Every base dependency against the range that bigopt is tested with."""
    try:
        wanted = requires("bigopt") or []
    except PackageNotFoundError:
        yield Check("packages", "fail", "bigopt itself is not installed", "pip install . in its folder")
        return
    yield from judge(wanted)


def judge(wanted: Iterable[str]) -> Iterator[Check]:
    """One check for each requirement that is not an extra's.

    Args:
        wanted: requirements as a distribution's metadata has them.
    """
    from packaging.requirements import Requirement

    for requirement in sorted(map(Requirement, wanted), key=lambda r: r.name):
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        allowed = str(requirement.specifier) or "any version"
        fix = f"pip install '{requirement.name}{requirement.specifier}'"
        try:
            found = version(requirement.name)
        except PackageNotFoundError:
            details = {"version": None, "range": allowed}
            yield Check(requirement.name, "fail", f"not installed (tested with {allowed})", fix, details)
            continue
        details = {"version": found, "range": allowed}
        if requirement.specifier.contains(found, prereleases=True):
            yield Check(requirement.name, "ok", f"{found} (tested with {allowed})", "", details)
        elif any(clause.operator == "!=" and not clause.contains(found) for clause in requirement.specifier):
            yield Check(requirement.name, "fail", f"{found} must not be used", fix, details)
        else:
            yield Check(requirement.name, "warn", f"{found} is outside the tested range {allowed}", fix, details)


def torchvision_check() -> Check:
    """Whether torchvision, if it is there, loads beside this torch.

    One that does not load is worse than none: torchmetrics, Lightning and timm import it where they find it.
    """
    name = "torchvision"
    try:
        found = version(name)
    except PackageNotFoundError:
        return Check(name, "ok", "not installed; only timm needs it")
    torch = _version("torch")
    details = {"version": found, "torch": torch}
    answer, error = ask(_TORCHVISION)
    if answer is None:
        return Check(
            name,
            "fail",
            f"{found} does not load beside torch {torch} ({error}); torchmetrics, Lightning and timm fail with it",
            "pip uninstall torchvision (or install the build that belongs to this torch, from where torch came from)",
            {**details, "error": error},
        )
    if _build(found) != _build(torch):
        line = f"{found} and torch {torch} are different builds, though both load"
        return Check(name, "warn", line, "install both from one place, or pip uninstall torchvision", details)
    return Check(name, "ok", f"{found} loads beside torch {torch}", "", details)


def plugins_check() -> Check:
    """Whether every installed plugin is in order."""
    from bigopt.registry import discover

    plugins = [plugin for catalogue in discover().values() for plugin in catalogue.values()]
    broken = [f"{plugin.kind} {plugin.name}" for plugin in plugins if plugin.error is not None]
    details = {"plugins": len(plugins), "broken": broken}
    if broken:
        line = f"{len(broken)} of {len(plugins)} broken: {', '.join(broken)}"
        return Check("plugins", "warn", line, "bigopt plugins says why", details)
    return Check("plugins", "ok", f"{len(plugins)} installed", "", details)


def _build(found: str) -> str:
    """``cpu`` of ``2.13.0+cpu``; PyPI's builds have none."""
    return found.partition("+")[2]


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "(not installed)"
