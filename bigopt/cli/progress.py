"""What a run shows while it works: a bar in a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from bigopt.vocabulary.errors import BigoptError

if TYPE_CHECKING:
    from types import TracebackType

    from rich.console import Console
    from rich.progress import Progress

Listener = Callable[[str, int, Mapping[str, float]], None]
_REDRAW = 0.1  # seconds between two drawings of the bar; drawing at every step would cost more than small steps do


@dataclass
class _Work:
    """Work in progress: what has been done of it, and what is shown beside it."""

    name: str
    total: int
    began: float
    bar: Any = None
    done: int = 0
    epochs: int = 0
    values: dict[str, float] = field(default_factory=dict)


class RichProgress:
    """Draws long work, and hands every epoch on to its listeners (implements ``vocabulary.run.Progress``).

    What goes wrong while drawing or listening is warned of once and costs no training; deliberate errors of bigopt
    that a listener raises (``Pruned``) pass.

    Args:
        on_epoch: called with stage, epoch (counted over the whole run) and values at every epoch's end.
        console: where to draw; None is standard error.
        plain: lines instead of a bar; None means whenever the console is no terminal.
        interval: least seconds between two plain lines.
        show: False draws and prints nothing (ranks other than the first); listeners hear of epochs all the same.
    """

    def __init__(
        self,
        on_epoch: Sequence[Listener] = (),
        console: Console | None = None,
        plain: bool | None = None,
        interval: float = 1.0,
        show: bool = True,
    ) -> None:
        self.show = show
        self.on_epoch = list(on_epoch)
        self._console = console
        self._plain = plain
        self._interval = interval
        self._work: list[_Work] = []
        self._bars: Progress | None = None
        self._drawn = 0.0
        self._printed = float("-inf")
        self._held: str | None = None
        self._warned: set[str] = set()

    def __enter__(self) -> RichProgress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def start(self, name: str, total: int) -> None:
        """Work of ``total`` steps begins, inside the work that was started before it and goes on."""
        work = _Work(name, total, time.monotonic())
        self._work.append(work)
        self._drawing(lambda: self._begin(work))

    def advance(self, steps: int = 1, **values: float) -> None:
        """Some steps of the innermost work are done; values are shown beside the bar."""
        if not self._work:
            return
        work = self._work[-1]
        work.done += steps
        work.values.update(values)
        now = time.monotonic()
        if self._bars is not None and now - self._drawn >= _REDRAW:
            self._drawn = now
            self._drawing(lambda: self._redraw(work))

    def stop(self) -> None:
        """The work that was started last is over."""
        if self._work:
            work = self._work.pop()
            self._drawing(lambda: self._end(work))

    def epoch(self, stage: str, epoch: int, values: Mapping[str, float]) -> None:
        """An epoch ended; listeners hear of it.

        Raises:
            BigoptError: a listener raised it on purpose, such as ``Pruned``.
        """
        if self._work:
            self._work[-1].epochs += 1
            self._work[-1].values.update(_shown(values))
        self._drawing(lambda: self._say(f"{stage}: epoch {epoch}  {_text(_shown(values))}"))
        for listener in list(self.on_epoch):
            self._safely(partial(listener, stage, epoch, dict(values)), "a listener of epochs")

    def close(self) -> None:
        """Ends all work and leaves the terminal as it was."""
        while self._work:
            self.stop()
        self._drawing(self._leave)

    # --- drawing --------------------------------------------------------------------------------------------------

    def _drawing(self, act: Callable[[], Any]) -> None:
        """Draws unless drawing has failed before: a terminal that is gone stays gone."""
        if self.show and not self._safely(act, "the progress display"):
            self.show, self._bars = False, None

    def _safely(self, act: Callable[[], Any], what: str) -> bool:
        try:
            act()
        except BigoptError:
            raise
        except Exception as problem:
            if what not in self._warned:
                self._warned.add(what)
                warnings.warn(f"{what} failed and training goes on: {type(problem).__name__}: {problem}", stacklevel=4)
            return False
        return True

    def _screen(self) -> Console:
        if self._console is None:
            self._console = make_console(stderr=True)
        return self._console

    def _is_plain(self) -> bool:
        return not self._screen().is_terminal if self._plain is None else self._plain

    def _begin(self, work: _Work) -> None:
        if self._is_plain():
            return
        if self._bars is None:
            self._bars = _bars(self._screen())
            self._bars.start()
        work.bar = self._bars.add_task(_label(work.name), total=work.total or None, shown="")
        self._redraw(work)

    def _redraw(self, work: _Work) -> None:
        if self._bars is not None and work.bar is not None:
            self._bars.update(work.bar, completed=work.done, shown=_beside(work))
            self._bars.refresh()

    def _end(self, work: _Work) -> None:
        if self._held is not None:
            self._print(self._held)
        if self._bars is None:
            took = time.monotonic() - work.began
            if self._is_plain() and took >= self._interval:
                self._print(f"{work.name}: {work.done}/{work.total} steps in {took:.1f} s")
            return
        if work.bar is not None:
            self._bars.remove_task(work.bar)
            self._bars.refresh()
        if not self._work:
            self._leave()

    def _leave(self) -> None:
        if self._bars is not None:
            bars, self._bars = self._bars, None
            bars.stop()

    def _say(self, line: str) -> None:
        """Prints a line where there is no bar; one that comes too soon waits, and a newer one replaces it."""
        if not self._is_plain():
            return
        if time.monotonic() - self._printed >= self._interval:
            self._print(line)
        else:
            self._held = line

    def _print(self, line: str) -> None:
        self._held = None
        self._printed = time.monotonic()
        self._screen().print(line, markup=False, highlight=False, soft_wrap=True)


def make_console(**options: Any) -> Console:
    """A rich console that raises where its pipe is broken; rich's own ends the process and redirects its output."""
    from rich.console import Console

    class Steady(Console):
        def on_broken_pipe(self) -> None:
            raise BrokenPipeError("what was drawn to has been closed")

    return Steady(**options)


def _bars(console: Console) -> Progress:
    """A display without a thread of its own: it is redrawn by :meth:`RichProgress.advance` only."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    return Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TextColumn("{task.fields[shown]}", style="dim", markup=False),
        TimeRemainingColumn(compact=True),
        console=console,
        auto_refresh=False,
        transient=True,
    )


def _beside(work: _Work) -> str:
    return "  ".join([f"epoch {work.epochs}"] * (work.epochs > 0) + [_text(work.values)])


def _label(name: str) -> str:
    from rich.markup import escape

    return escape(name)


def _shown(values: Mapping[str, float]) -> dict[str, float]:
    """The values worth a reader's time while it runs: losses and what validation says."""
    return {name: value for name, value in values.items() if name == "train/loss" or name.startswith("val/")}


def _text(values: Mapping[str, float]) -> str:
    return "  ".join(f"{name} {value:.4g}" for name, value in values.items())
