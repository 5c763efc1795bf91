"""Between Hydra and bigopt's search: what was asked for, and how one trial is launched."""

from __future__ import annotations

from dataclasses import replace
from signal import SIGTERM
from typing import TYPE_CHECKING, Any, cast

from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from bigopt.cli.outcome import Outcome
from bigopt.config._references import register_references
from bigopt.config._resolvers import study
from bigopt.search import Request, Result, Task
from bigopt.search.away import end_helpers, telling
from bigopt.search.keys import PARENT, STUDY, TEST, TRIAL, WORKER
from bigopt.store import me
from hydra_plugins.bigopt_sweeper._remember import RememberingLoader

if TYPE_CHECKING:
    from bigopt.config import Checked
    from hydra_plugins.bigopt_sweeper.sweeper import BigoptSweeper

ENDINGS = {"finished", "pruned", "paused", "failed", "refused", "interrupted"}


def search(sweeper: BigoptSweeper, arguments: list[str]) -> Outcome:
    """Runs the search that a command line asks for."""
    from bigopt.search.whole import whole

    request = request_of(sweeper, arguments)
    plan = request.plan()
    trials = Trials(sweeper, plan.study, request.trial_lines())
    done = whole(request, plan, trials)
    return Outcome(done.code, done.status)


def request_of(sweeper: BigoptSweeper, arguments: list[str]) -> Request:
    """What was asked for, from Hydra's configuration."""
    config, context = sweeper.config, sweeper.hydra_context
    assert config is not None and context is not None
    register_references(OmegaConf.to_container(config.hydra.sweeper, resolve=False))
    settings = OmegaConf.to_container(config.hydra.sweeper, resolve=True)
    hydra_lines = OmegaConf.to_container(config.hydra.overrides.hydra, resolve=False)
    assert isinstance(settings, dict) and isinstance(hydra_lines, list)
    settings = {str(key): value for key, value in settings.items()}
    lines = [str(line) for line in hydra_lines if not str(line).startswith(("hydra.mode", "hydra.sweeper."))]

    def compose(overrides: list[str]) -> DictConfig:
        from bigopt.config.command_line import CommandLine

        loader = context.config_loader
        return CommandLine(loader, config.hydra.job.config_name, []).compose([*lines, *overrides], RunMode.RUN)

    return Request(
        lines=arguments,
        sweeper=settings,
        compose=compose,
        folder=sweeper.folder,
        study=str(settings.get("study_name") or study(config)),
        loader=context.config_loader,
        task=_task if getattr(sweeper.task_function, "execute", None) is None else None,
    )


def _task(checked: Checked) -> str:
    """The task that the data pose, looked at apart from this process, whose imports the workers share."""
    from bigopt.search.apart import preload, task_of

    preload()
    return task_of(dict(checked.dataset), checked.seed)


class Trials:
    """Launches jobs through Hydra's launcher, whichever it is.

    Args:
        sweeper: gives the launcher.
        name: the study's.
        extra: overrides of every trial.
    """

    def __init__(self, sweeper: BigoptSweeper, name: str, extra: list[str]) -> None:
        self.launcher = cast(Any, sweeper.quiet_launcher())
        self.name = name
        self.extra = extra
        self.folder = sweeper.folder.resolve()
        self.away = type(self.launcher).__name__ != "BasicLauncher"
        if not self.away:
            context = self.launcher.hydra_context
            self.launcher.hydra_context = replace(context, config_loader=RememberingLoader(context.config_loader))
        self.parent = "sweep"

    def __call__(self, task: Task) -> Result:
        """One trial of the search."""
        env = {TRIAL: str(task.trial), STUDY: self.name, PARENT: self.parent}
        return self.launch([*task.lines, *self.extra], task.number, env)

    def again(self, lines: list[str], folder: str, test: bool) -> Result:
        """One training of the winner.

        Args:
            lines: overrides.
            folder: below the sweep's.
            test: whether the test split is read.
        """
        env = {PARENT: self.parent} | ({TEST: "1"} if test else {})
        shared = [line for line in self.extra if line.startswith("trainer.threads=")]
        try:
            return self.launch([*lines, *shared, f"hydra.sweep.subdir={folder}"], 0, env)
        finally:
            end_helpers()

    def launch(self, lines: list[str], number: int, env: dict[str, str]) -> Result:
        """Launches one job, and waits for it."""
        if not self.away:
            return self._launch(lines, number, env)
        with telling(self.folder) as asked:  # jobs may start in another folder
            here = str(self.folder).replace("\\", "\\\\").replace("'", "\\'")
            result = self._launch([*lines, f"hydra.sweep.dir='{here}'"], number, env | {WORKER: str(me())})
        if asked and result.status in ("failed", "lost", "interrupted"):
            return Result("interrupted", signal=SIGTERM)
        return result

    def _launch(self, lines: list[str], number: int, env: dict[str, str]) -> Result:
        sets = [f"++hydra.job.env_set.{key}='{value}'" for key, value in env.items()]
        try:
            (returned,) = self.launcher.launch([[*lines, *sets]], initial_job_idx=number)
        except SystemExit as end:  # how a job, or our own handler, ends on a signal
            code = end.code if isinstance(end.code, int) else 143
            return Result("interrupted", signal=max(code - 128, 1))
        except Exception as error:
            if not self.away:
                raise
            return Result("lost", problems=(f"its process died: {_first_line(error)}",))
        outcome = returned._return_value
        if isinstance(outcome, Outcome) and outcome.status in ENDINGS:
            signal = outcome.code - 128 if outcome.status == "interrupted" else None
            return Result(outcome.status, outcome.report, outcome.problems, signal)  # type: ignore[arg-type]
        return Result("failed", problems=(f"{type(outcome).__name__}: {outcome}",))


def _first_line(error: Exception) -> str:
    text = str(error).strip()
    return f"{type(error).__name__}: {text.splitlines()[0] if text else 'without a word'}"
