"""One job of Hydra: check, run, and say what came of it without ever ending the sweep around it."""

from __future__ import annotations

import errno
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bigopt.cli.outcome import FAILED, WRONG, Outcome
from bigopt.search.keys import PARENT, STUDY, TEST, TRIAL, WORKER
from bigopt.store.redaction import redact
from bigopt.vocabulary.errors import BigoptError, Interrupted, Paused, Pruned, RequestError

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from bigopt.config import Checked

_FOLDER_TROUBLE = {errno.ENOSPC, errno.EACCES, errno.EPERM, errno.EROFS, errno.EDQUOT, errno.ENOTDIR, errno.EFBIG}


ANOTHER_TRY = 60.0
"""Seconds that a trial waits for an earlier try in its folder to end."""


@dataclass
class Job:
    """The task that Hydra calls, also in the processes of a launcher.

    Attributes:
        execute: runs a checked configuration; None means ``bigopt.pipeline.execute``.
        plain: the configuration of an empty command line, by which a resumed run tells what was asked for.
    """

    execute: Callable[..., dict[str, Any]] | None = None
    plain: DictConfig | None = None

    def __call__(self, cfg: DictConfig) -> Outcome:
        """Runs the job; only an interruption goes through, as ``SystemExit``, since it ends the sweep too."""
        from hydra.core.hydra_config import HydraConfig
        from hydra.types import RunMode

        from bigopt.config._job import task_lines

        hydra = HydraConfig.get()
        folder = Path(hydra.runtime.output_dir)
        with _waited_for(hydra):
            outcome = attempt(lambda: self._run(cfg, folder, task_lines(hydra), _sweeps(hydra)))
        if outcome.code > 128 and hydra.mode == RunMode.MULTIRUN:
            raise SystemExit(outcome.code)
        return outcome

    def _run(self, cfg: DictConfig, folder: Path, lines: list[str], extra: dict[str, Any]) -> Outcome:
        from bigopt.store.locks import lock

        checked = prepare(cfg, lines, self.plain)
        folder = checked.resume or folder
        # an earlier try whose worker died may still be writing its checkpoint
        held = lock(folder / ".run", timeout=ANOTHER_TRY if TRIAL in os.environ else 0.1)
        try:
            held.__enter__()
        except TimeoutError:
            raise RequestError(f"{folder}: another bigopt run is working in this folder") from None
        try:
            execute = self._executor()
            return Outcome.of(execute(checked, folder, overrides=lines, parent=os.environ.get(PARENT), **extra))
        finally:
            held.__exit__(None, None, None)

    def _executor(self) -> Callable[..., dict[str, Any]]:
        if self.execute is not None:
            return self.execute
        from bigopt.cli.shown import execute

        return execute


def prepare(cfg: DictConfig, lines: Sequence[str], plain: DictConfig | None = None) -> Checked:
    """The checked configuration of a job; for a resumed one, that of the run it goes on with.

    Args:
        cfg: what Hydra composed, without Hydra's own settings.
        lines: the command line's overrides.
        plain: what Hydra composes of an empty command line; needed to resume.

    Raises:
        RequestError: everything that is wrong with it.
    """
    from bigopt.config import check

    checked = check(cfg, composed=True)
    if checked.resume is None or plain is None:
        return checked
    from bigopt.config.checked import read_saved
    from bigopt.config.resume import resumed

    saved = check(read_saved(checked.resume)).resolved
    return check(resumed(saved, checked.resolved, check(plain).resolved, lines))


def attempt(work: Callable[[], Outcome]) -> Outcome:
    """The outcome of some work, whatever it raises; what went wrong is said on stderr."""
    try:
        return work()
    except RequestError as error:
        say(error.problems, error)
        return Outcome(WRONG, "refused", problems=error.problems)
    except Interrupted as error:
        say([str(error)])
        return Outcome(error.exit_code, "interrupted", problems=(str(error),))
    except KeyboardInterrupt:
        say(["interrupted"])
        return Outcome(130, "interrupted", problems=("interrupted",))
    except Pruned as error:
        return Outcome(error.exit_code, "paused" if isinstance(error, Paused) else "pruned", problems=(str(error),))
    except BigoptError as error:
        say(str(error).splitlines(), error)
        return Outcome(error.exit_code, "failed", problems=(str(error),))
    except OSError as error:
        if error.errno not in _FOLDER_TROUBLE:
            return _unexpected(error)
        line = f"{error.filename or 'output folder'}: cannot be written: {error.strerror}"
        say([line], error)
        return Outcome(WRONG, "refused", problems=(line,))
    except Exception as error:
        return _unexpected(error)


def say(lines: Sequence[str], error: BaseException | None = None) -> None:
    """Tells the user, one line each, with secrets masked; the traceback only where Hydra's switch asks for it."""
    if error is not None and os.environ.get("HYDRA_FULL_ERROR") == "1":
        print(redact("".join(traceback.format_exception(error))), file=sys.stderr, end="")
    for line in lines:
        print(f"bigopt: {redact(line)}", file=sys.stderr)
    sys.stderr.flush()


def _waited_for(hydra: Any) -> AbstractContextManager[None]:
    """Listens to the process that waits, where a launcher runs the job in another one."""
    if WORKER not in os.environ:
        return nullcontext()
    from bigopt.search.away import listening

    here = Path(hydra.runtime.cwd)
    if here.is_dir():
        os.chdir(here)  # some launchers' processes start elsewhere
    return listening(here / hydra.sweep.dir)


def _sweeps(hydra: Any) -> dict[str, Any]:
    """What a sweep's environment says to its job, as further arguments of what runs it."""
    if TRIAL not in os.environ:
        return {"test": True} if TEST in os.environ else {}
    from bigopt.search.reporting import TrialPlace

    storage = hydra.sweeper.get("storage")
    folder = Path(hydra.runtime.cwd) / hydra.sweep.dir
    return {"trial": TrialPlace(storage, folder, os.environ[STUDY], int(os.environ[TRIAL]))}


def _unexpected(error: Exception) -> Outcome:
    """A failure that nobody foresaw: its traceback is what helps."""
    print(redact("".join(traceback.format_exception(error))), file=sys.stderr, end="")
    line = f"the run failed: {type(error).__name__}: {error}"
    say([line.splitlines()[0]])
    return Outcome(FAILED, "failed", problems=(line,))
