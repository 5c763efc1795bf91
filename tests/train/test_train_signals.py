"""Handlers only set a flag; a second Ctrl-C stops at once."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path

import pytest
from train_fakes import make_run

from bigopt.train import Fitter, Signals
from bigopt.vocabulary.batch import Batch
from bigopt.vocabulary.errors import Interrupted
from bigopt.vocabulary.part import Part
from bigopt.vocabulary.run import Run


def test_handlers_are_installed_and_put_back() -> None:
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    with Signals() as signals:
        os.kill(os.getpid(), signal.SIGTERM)
        assert signals.received == signal.SIGTERM
        with pytest.raises(Interrupted) as stopped:
            signals.check()
        assert stopped.value.exit_code == 143
    assert {number: signal.getsignal(number) for number in before} == before
    Signals().check()


def test_the_first_signal_is_the_one_that_counts() -> None:
    signals = Signals()
    signals.request(signal.SIGINT)
    signals.request(signal.SIGTERM)
    assert signals.received == signal.SIGINT


def test_a_second_interrupt_stops_at_once() -> None:
    with Signals() as signals:
        os.kill(os.getpid(), signal.SIGINT)
        assert signals.received == signal.SIGINT and not signals.forced
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
        assert signals.forced


def test_outside_the_main_thread_nothing_is_installed() -> None:
    installed = []
    thread = threading.Thread(target=lambda: installed.append(Signals().__enter__().installed))
    thread.start()
    thread.join()
    assert installed == [False]


class Press(Part):
    """Presses Ctrl-C some times within one step."""

    def __init__(self, times: int) -> None:
        self.times = times

    def batch(self, run: Run, batch: Batch) -> Batch:
        for _ in range(self.times):
            os.kill(os.getpid(), signal.SIGINT)
        return batch


def checkpoints(folder: Path) -> list[Path]:
    return list(folder.glob("fits/*/checkpoints/0*"))


@pytest.mark.parametrize(("times", "kept"), [(1, 1), (2, 0)])
def test_interrupting_a_fit(times: int, kept: int, tmp_path: Path) -> None:
    with Signals() as signals:
        with pytest.raises(Interrupted) as stopped:
            Fitter(tmp_path, signals=signals)(make_run(tmp_path, parts=[Press(times)]))
        assert stopped.value.exit_code == 130
        assert signal.getsignal(signal.SIGINT) == signals._handle  # still ours, not ignored
    assert len(checkpoints(tmp_path)) == kept
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_ctrl_c_without_handlers_is_pythons_own(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        Fitter(tmp_path)(make_run(tmp_path, parts=[Press(1)]))
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
