"""Stand-ins for the pipeline that launchers can carry to other processes, with real reports and no training."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

EPOCHS = 3


def curves(
    checked: Any, folder: Path, *, overrides: Any, parent: Any = None, test: Any = None, trial: Any = None
) -> dict[str, Any]:
    """Three epochs whose accuracy is better for small learning rates; paused ones go on where they were."""
    from bigopt.search.reporting import reporter

    folder.mkdir(parents=True, exist_ok=True)
    lr, done = checked.settings.optimizer.lr, folder / "epochs"
    report = reporter(trial, checked)
    report.plan({"baseline": EPOCHS})
    for epoch in range(1 + (len(done.read_text().split()) if done.exists() else 0), EPOCHS + 1):
        with open(done, "a") as file:
            file.write(f"{os.getpid()}\n")
        report.epoch("baseline", epoch, {"val/accuracy": 1 - lr - 0.1 / epoch})
    row = {"name": "baseline", "metrics": {"val/accuracy": 1 - lr - 0.1 / EPOCHS}}
    content = {"status": "finished", "stages": [row], "test": None, "budget": {"met": None}}
    (folder / "report.json").write_text(json.dumps(content))
    return content


def meeting(checked: Any, folder: Path, **more: Any) -> dict[str, Any]:
    """The same, once two trials are running at a time; each writes down its Ray node."""
    import ray

    folder.mkdir(parents=True, exist_ok=True)
    (folder / "node").write_text(ray.get_runtime_context().get_node_id())
    deadline = time.monotonic() + 60
    while len(list(folder.parent.glob("*/node"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    return curves(checked, folder, **more)


def dying(checked: Any, folder: Path, **more: Any) -> dict[str, Any]:
    """The same; the first try of the second configuration is killed."""
    mark = folder / "killed"
    if folder.name == "1" and not mark.exists():
        folder.mkdir(parents=True, exist_ok=True)
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return curves(checked, folder, **more)


def waiting(checked: Any, folder: Path, **more: Any) -> dict[str, Any]:
    """The same; the first try waits for a signal, as a training does, and writes down that it came."""
    from bigopt.train.signals import Signals

    mark = folder / "waiting"
    if not mark.exists():
        folder.mkdir(parents=True, exist_ok=True)
        with Signals() as signals:
            mark.touch()
            while signals.received is None:
                time.sleep(0.01)
            (folder / "checkpoint").write_text(str(signals.received))
            signals.check()
    return curves(checked, folder, **more)
