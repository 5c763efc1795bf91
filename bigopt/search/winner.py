"""The best configuration, trained again on fresh seeds before it is called best, and tested once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from bigopt.report import value_of
from bigopt.search.configurations import Configuration
from bigopt.search.plan import Plan, Result
from bigopt.search.settle import final_row
from bigopt.store import read_json
from bigopt.vocabulary.errors import RequestError

Launch = Callable[[list[str], str, bool], Result]
Forked = Callable[[Sequence[Callable[[], object]]], None]


@dataclass(frozen=True)
class Winner:
    """What the fresh seeds gave.

    Attributes:
        seeds: fresh seeds.
        values: of the first objective, by seed; None where the training failed.
        folder: of the first fresh seed's run, below the sweep's; the test split was read there.
        report: that run's.
    """

    seeds: tuple[int, ...]
    values: tuple[float | None, ...]
    folder: str
    report: dict[str, Any]

    def record(self, metric: str) -> dict[str, Any]:
        """As ``sweep.json`` shows it."""
        known = [value for value in self.values if value is not None]
        return {
            "objective": metric,
            "seeds": list(self.seeds),
            "values": list(self.values),
            "mean": mean(known) if known else None,
            "std": stdev(known) if len(known) > 1 else None,
            "folder": self.folder,
            "test": self.report.get("test"),
            "budget": self.report.get("budget"),
        }


def confirm(plan: Plan, top: Configuration, seed: int, count: int, launch: Launch, forked: Forked) -> Winner | None:
    """Trains the configuration on fresh seeds, and tests the first of them; None where none could be trained.

    What an earlier start has done is not done again.

    Args:
        plan: the sweep.
        top: the configuration.
        seed: the search's.
        count: of fresh seeds.
        launch: runs overrides in a folder below the sweep's; the last argument says whether the test split is read.
        forked: runs functions in processes of their own.
    """
    seeds = tuple((seed + 1 + number) % 2**32 for number in range(count))
    lines = [line for line in plan.space.lines(top.last.params) if line.lstrip("+").partition("=")[0] != "seed"]

    def train(fresh: int, test: bool = False) -> Callable[[], object]:
        return lambda: launch([*lines, f"seed={fresh}"], _folder(top, fresh), test)

    # the first one is tested: choosing it by its validation value would favour a lucky seed
    forked([train(fresh, test=fresh == seeds[0]) for fresh in seeds if not _report(plan, top, fresh)])
    monitor = plan.objectives[0]
    reports = {fresh: _report(plan, top, fresh) for fresh in seeds}
    values = {fresh: value_of(final_row(report), monitor.metric) for fresh, report in reports.items() if report}
    valued = {fresh: value for fresh, value in values.items() if value is not None}
    if not valued:
        return None
    chosen = next(iter(valued))
    if not reports[chosen].get("test"):
        forked([train(chosen, test=True)])
    report = _report(plan, top, chosen) or reports[chosen]
    return Winner(seeds, tuple(values.get(fresh) for fresh in seeds), _folder(top, chosen), report)


def _folder(top: Configuration, seed: int) -> str:
    return f"best/trial-{top.number}-seed-{seed}"


def _report(plan: Plan, top: Configuration, seed: int) -> dict[str, Any]:
    """The report of a finished run; empty where there is none."""
    file = plan.folder / Path(_folder(top, seed)) / "report.json"
    try:
        report = read_json(file)
    except (OSError, RequestError):
        return {}
    return dict(report) if isinstance(report, dict) and report.get("status") == "finished" else {}
