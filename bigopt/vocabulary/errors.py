"""Errors that bigopt raises on purpose, each with the exit code the command line answers with."""

from __future__ import annotations

from collections.abc import Sequence


class BigoptError(Exception):
    """Base of every deliberate error; the message is one clear line for the user."""

    exit_code = 1


class RequestError(BigoptError):
    """The request was wrong: bad configuration, missing or corrupt data, an order that cannot work.

    Args:
        problems: one line, or several when several things are wrong at once (all are shown).
    """

    exit_code = 2

    def __init__(self, problems: str | Sequence[str]) -> None:
        self.problems: tuple[str, ...] = (problems,) if isinstance(problems, str) else tuple(problems)
        super().__init__("\n".join(self.problems))


class RunFailed(BigoptError):
    """The run was started correctly and failed, for example on a loss that is not finite."""

    exit_code = 1


class Interrupted(BigoptError):
    """The run was asked to stop by a signal and left everything needed to resume.

    Args:
        signum: the signal's number; the exit code is ``128 + signum`` (130 for SIGINT, 143 for SIGTERM).
    """

    def __init__(self, signum: int) -> None:
        self.signum = signum
        self.exit_code = 128 + signum
        super().__init__(f"interrupted by signal {signum}; the run can be resumed")


class Pruned(BigoptError):
    """A trial was stopped early by its tuner's pruner; not a failure."""

    exit_code = 0


class Paused(Pruned):
    """A trial has had the epochs that its tuner gave it; a checkpoint is written, and it may go on later."""
