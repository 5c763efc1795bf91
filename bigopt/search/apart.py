"""Runs a function in a process of its own, so that this one keeps no threads, no memory and no device from it."""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections.abc import Callable
from typing import Any, TypeVar

from bigopt.vocabulary.errors import RequestError, RunFailed

T = TypeVar("T")


def apart(function: Callable[[], T]) -> T:
    """What the function returns, as plain values.

    Raises:
        RequestError: the function raised one.
        RunFailed: it failed otherwise.
    """
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe(duplex=False)
    sys.stdout.flush()
    sys.stderr.flush()
    process = context.Process(target=_child, args=(theirs, function))
    process.start()
    theirs.close()
    try:
        kind, value = ours.recv()
    except EOFError:
        kind, value = "failed", "its process died"
    process.join()
    if kind == "refused":
        raise RequestError(value)
    if kind == "failed":
        raise RunFailed(str(value))
    result: T = value
    return result


def _child(connection: Any, function: Callable[[], Any]) -> None:
    try:
        answer = ("done", function())
    except RequestError as error:
        answer = ("refused", error.problems)
    except Exception as error:
        answer = ("failed", f"{type(error).__name__}: {error}")
    connection.send(answer)
    connection.close()
    os._exit(0)


def preload() -> None:
    """Imports what every trial needs before workers are forked: they share it, and start at once."""
    import bigopt.measure.stage
    import bigopt.pipeline.spine
    import bigopt.train._session  # noqa: F401


def task_of(dataset: dict[str, Any], seed: int) -> str:
    """``classification`` or ``regression``; finds out that data are missing before any trial does.

    Raises:
        RequestError: the data cannot be used.
    """

    def look() -> str:
        from bigopt.pipeline.build import Builder

        return str(Builder(seed).dataset(dataset).schema.task)

    return apart(look)
