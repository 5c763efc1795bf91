"""Something done again and again beside a block."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def repeating(act: Callable[[], bool], seconds: float, name: str) -> Iterator[None]:
    """Acts in a thread of its own until the block ends.

    Args:
        act: done after every pause; True ends it early.
        seconds: the pause.
        name: of the thread.
    """
    over = threading.Event()

    def run() -> None:
        while not over.wait(seconds) and not act():
            pass

    thread = threading.Thread(target=run, name=name, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
