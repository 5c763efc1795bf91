"""Everything that `bigopt tuner=…` does: the search, the winner, the files, and the sweep's run in tracking."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from bigopt.search.claim import Claimer
from bigopt.search.configurations import Configuration, configurations, tries
from bigopt.search.files import BEST, EXPERIMENT, FILE, TABLE, refuse_other, write, write_best
from bigopt.search.outcome import best, completed, shown
from bigopt.search.plan import Plan, Result, Task
from bigopt.search.pool import Stopper, fork_each
from bigopt.search.recording import Recording
from bigopt.search.request import Request
from bigopt.search.running import OVER_BUDGET, Sweep, run_sweep
from bigopt.search.storage import Storage
from bigopt.search.study import load, prepare, warm_start
from bigopt.search.winner import Winner, confirm
from bigopt.store import read_json

WRITE_EVERY = 5.0
"""Least seconds between two writes of the files while a sweep goes on."""


class Launcher(Protocol):
    """Runs the jobs of a sweep."""

    parent: str

    def __call__(self, task: Task) -> Result:
        """One trial."""
        ...

    def again(self, lines: list[str], folder: str, test: bool) -> Result:
        """One training of the winner."""
        ...


def whole(request: Request, plan: Plan, launcher: Launcher) -> Sweep:
    """Runs the sweep.

    Raises:
        RequestError: the study searched something else, or the folder is another study's.
        RunFailed: workers die before they begin anything.
    """
    start = time.monotonic()
    refuse_other(plan)
    study = prepare(plan)
    if not Claimer(plan, study).remaining() and (found := _finished(plan, study)) is not None:
        return found
    plan.folder.mkdir(parents=True, exist_ok=True)
    recording = Recording(plan, request.checked.settings.tracking, _params(request, plan), _tags(request, plan))
    status: str = "failed"
    try:
        _warm_up(request, plan)
        launcher.parent = recording.wait() or launcher.parent
        notes = _Notes(plan, recording, start)
        write(plan, configurations(tries(study)), "running", 0.0)
        sweep = run_sweep(plan, launcher, recorder=notes)
        winner = None
        if sweep.status == "finished":
            sweep, winner = _winner(request, plan, sweep, launcher)
        _leave(request, plan, sweep, winner, recording, start)
        status = sweep.status
    finally:
        recording.finish(status)
    return sweep


@dataclass
class _Notes:
    """Hands everything on to tracking, and writes the files now and then."""

    plan: Plan
    recording: Recording
    start: float
    written: float = field(default_factory=time.monotonic)
    ended_before: int = -1

    def seen(self, known: Sequence[Configuration]) -> None:
        self.recording.seen(known)
        now = time.monotonic()
        ended = sum(each.state in ("complete", "pruned", "failed") for each in known)
        if ended != self.ended_before and now - self.written > WRITE_EVERY:
            self.ended_before, self.written = ended, now
            write(self.plan, known, "running", now - self.start)

    def ended(self, known: Sequence[Configuration], status: str) -> None:
        write(self.plan, known, status, time.monotonic() - self.start)


def _winner(request: Request, plan: Plan, sweep: Sweep, launcher: Launcher) -> tuple[Sweep, Winner | None]:
    """Trains the best configuration on fresh seeds; the exit code is that of what it then keeps to."""
    count = request.confirming
    top = best(sweep.known, plan.objectives)
    if not count or top is None:
        return sweep, None
    _say(f"trial {top.number} is trained again on {count} fresh seed{'s' if count > 1 else ''}")
    plan.storage.close()
    with Stopper() as stopper:
        winner = confirm(
            plan,
            top,
            request.checked.seed,
            count,
            launcher.again,
            lambda jobs: fork_each(jobs, min(plan.workers, count), stopper),
        )
        if stopper.received is not None:
            return Sweep(128 + stopper.received, "interrupted", sweep.known, stopper.received, sweep.why), None
    code = sweep.code
    if winner is not None and (winner.report.get("budget") or {}).get("met") is not None:
        code = 0 if winner.report["budget"]["met"] else OVER_BUDGET
    return Sweep(code, sweep.status, sweep.known, None, sweep.why), winner


def _leave(
    request: Request, plan: Plan, sweep: Sweep, winner: Winner | None, recording: Recording, start: float
) -> None:
    """Writes the files, and says what was found."""
    more: dict[str, Any] = {"code": sweep.code, "stopped": sweep.why}
    if winner is not None:
        more["confirmed"] = winner.record(plan.objectives[0].metric)
    top = best(sweep.known, plan.objectives)
    files: list[Path] = []
    if top is not None:
        values = {m.metric: v for m, v in zip(plan.objectives, top.last.values, strict=True)}
        head = f"The best configuration of study {plan.study}: trial {top.number}, {shown(values)}"
        choices, resolved = request.described(plan.space.lines(top.last.params))
        files.append(write_best(plan.folder, head, choices, resolved))
    content = write(plan, sweep.known, sweep.status, time.monotonic() - start, more)
    if request.plotting and completed(sweep.known):
        from bigopt.search.plots import PAGE, draw

        draw(plan, load(plan.storage, plan.study))
        files += [path for path in (plan.folder / PAGE, plan.folder / "plots") if path.exists()]
    for path in [plan.folder / FILE, plan.folder / TABLE, *files]:
        recording.artifact(path, path.name if path.is_dir() else "")
    _report(plan, content, winner)


def _finished(plan: Plan, study: Any) -> Sweep | None:
    """What an earlier start came to, where nothing is left to do: one killed while the winner trained has no code."""
    file = plan.folder / FILE
    content = read_json(file) if file.is_file() else {}
    over = "code" in content and content["status"] in ("finished", "failed")
    if not over or content.get("n_trials") != plan.limits.n_trials:
        return None
    _say("all trials are done already")
    known = configurations(tries(study))
    _report(plan, content, None)
    return Sweep(int(content["code"]), str(content["status"]), known)


def _warm_up(request: Request, plan: Plan) -> None:
    """Lets the tuner learn from another study."""
    source = request.sweeper.get("warm_start")
    if not source:
        return
    place, name = plan.storage, str(source)
    folder = Path(name)
    if (folder / FILE).is_file():
        content = read_json(folder / FILE)
        place, name = Storage.of(content["storage"], folder), str(content["study"])
    from bigopt.vocabulary.errors import RequestError

    try:
        study = load(place, name)
    except KeyError:
        raise RequestError(
            f"hydra.sweeper.warm_start: got {str(source)!r}, expected a sweep's folder or a study's name"
        ) from None
    _say(f"warm start with {warm_start(plan, study)} trials of study {name}")


def _params(request: Request, plan: Plan) -> dict[str, Any]:
    return {**request.checked.resolved, "space": plan.space.described(), "sweeper": _settings(request)}


def _settings(request: Request) -> dict[str, Any]:
    kept = ("n_trials", "n_jobs", "timeout", "target", "patience", "worth", "max_retries", "confirm")
    return {name: request.sweeper.get(name) for name in kept}


def _tags(request: Request, plan: Plan) -> dict[str, Any]:
    return {"bigopt.kind": "sweep", "bigopt.study": plan.study, "overrides": " ".join(request.lines)}


def _report(plan: Plan, content: dict[str, Any], winner: Winner | None) -> None:
    """A few lines on standard output."""
    counts = ", ".join(f"{number} {state}" for state, number in content["counts"].items())
    lines = [f"sweep {plan.study}: {counts}"]
    top = content.get("best")
    if top is not None:
        lines.append(f"best: trial {top['number']}  {shown(top['values'])}")
        lines += [f"  {name} = {value}" for name, value in top["params"].items()]
        if any(top.get("exceeds", {}).values()):
            lines.append("  exceeds " + ", ".join(name for name, by in top["exceeds"].items() if by))
    confirmed = content.get("confirmed")
    if confirmed and confirmed["mean"] is not None:
        spread = f" ± {confirmed['std']:.4g}" if confirmed["std"] is not None else ""
        lines.append(
            f"on {len(confirmed['seeds'])} fresh seeds: {confirmed['objective']} {confirmed['mean']:.5g}{spread}"
        )
        final = ((confirmed.get("test") or {}).get("final")) or {}
        lines += [f"test, read once: {shown(final)}"] if final else []
    front = content.get("pareto")
    if front:
        lines.append(f"Pareto set: {len(front)} configurations")
        lines += [f"  trial {each['number']}  {shown(each['values'])}" for each in front[:10]]
    if content.get("failures"):
        lines += [f"trial {each['number']} failed: {each['reason']}" for each in content["failures"][:5]]
    lines.append(f"files: {plan.folder}/{{{FILE},{TABLE}{',' + BEST if top else ''}}}")
    if top:
        lines.append(f"again: bigopt --config-dir {plan.folder} experiment={Path(EXPERIMENT).stem}")
    print("\n".join(lines), flush=True)


def _say(text: str) -> None:
    print(f"bigopt: {text}", file=sys.stderr, flush=True)
