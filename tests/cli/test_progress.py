import io
import time

import pytest
from rich.console import Console

from bigopt.cli import progress as module
from bigopt.cli.progress import RichProgress, make_console
from bigopt.vocabulary.errors import Interrupted, Pruned


def terminal(width=120):
    return Console(file=io.StringIO(), force_terminal=True, width=width, legacy_windows=False)


def paper():
    return Console(file=io.StringIO(), width=40)


def written(console):
    return console.file.getvalue()


def train(progress, epochs=3, steps=4, name="baseline"):
    progress.start(name, epochs * steps)
    for epoch in range(1, epochs + 1):
        for _ in range(steps):
            progress.advance(1, loss=1 / epoch)
        progress.epoch(name, epoch, {"train/loss": 1 / epoch, "val/accuracy": 0.9, "lr": 0.1})
    progress.stop()


def test_a_bar_shows_steps_epoch_loss_and_validation(monkeypatch):
    monkeypatch.setattr(module, "_REDRAW", 0.0)
    console = terminal()
    train(RichProgress(console=console))
    text = written(console)
    assert "baseline" in text
    assert "8/12" in text.replace(" ", "")
    assert "epoch 2" in text
    assert "train/loss 0.5" in text
    assert "val/accuracy 0.9" in text
    assert "lr" not in text
    assert text.rstrip().endswith("\x1b[?25h")  # the cursor is back


def test_lines_without_a_terminal_one_an_epoch():
    console = paper()
    train(RichProgress(console=console, interval=0.0))
    lines = [line for line in written(console).splitlines() if "epoch" in line]
    assert lines == [f"baseline: epoch {e}  train/loss {1 / e:.4g}  val/accuracy 0.9" for e in (1, 2, 3)]
    assert "\x1b" not in written(console)


def test_lines_are_rate_limited_and_the_last_epoch_is_said():
    console = paper()
    train(RichProgress(console=console, interval=60.0), epochs=50)
    lines = written(console).splitlines()
    assert [line.split("  ")[0] for line in lines] == ["baseline: epoch 1", "baseline: epoch 50"]


def test_work_inside_work_is_ended_in_turn(monkeypatch):
    monkeypatch.setattr(module, "_REDRAW", 0.0)
    console = terminal()
    progress = RichProgress(console=console)
    progress.start("pruning", 2)
    progress.start("latency", 5)
    progress.advance(5)
    progress.stop()
    progress.advance(2)
    progress.stop()
    text = written(console).replace(" ", "")
    assert "5/5" in text
    assert "2/2" in text
    assert "7/" not in text
    progress.stop()  # nothing is left
    progress.advance()


def test_listeners_hear_every_epoch_without_being_able_to_change_it():
    heard, values = [], {"val/accuracy": 0.9}

    def greedy(stage, epoch, seen):
        seen.clear()

    progress = RichProgress([greedy, lambda *event: heard.append(event)], console=paper())
    progress.epoch("baseline", 1, values)
    progress.on_epoch.append(lambda *event: heard.append("late"))
    progress.epoch("pruning", 2, values)
    assert heard == [("baseline", 1, {"val/accuracy": 0.9}), ("pruning", 2, {"val/accuracy": 0.9}), "late"]


def test_a_listener_that_fails_costs_no_training_and_is_said_once():
    heard = []

    def broken(*_):
        raise ConnectionError("server is down")

    progress = RichProgress([broken, lambda *event: heard.append(event[1])], console=paper())
    with pytest.warns(UserWarning, match="training goes on: ConnectionError: server is down") as caught:
        for epoch in (1, 2, 3):
            progress.epoch("baseline", epoch, {})
    assert len(caught) == 1
    assert heard == [1, 2, 3]


@pytest.mark.parametrize("error", [Pruned("trial 3"), Interrupted(15)])
def test_what_is_raised_on_purpose_passes(error):
    def stop(*_):
        raise error

    with pytest.raises(type(error)):
        RichProgress([stop], console=paper()).epoch("baseline", 1, {})


def test_a_broken_terminal_costs_no_training():
    class Gone(io.StringIO):
        def write(self, text):
            raise BrokenPipeError("gone")

    heard = []
    for force in (True, False):
        console = make_console(file=Gone(), force_terminal=force, width=80)
        with pytest.warns(UserWarning, match="progress display failed and training goes on"):
            train(RichProgress([lambda *event: heard.append(event[1])], console=console))
    assert heard == [1, 2, 3, 1, 2, 3]


def test_a_hidden_display_draws_nothing_and_still_forwards():
    heard = []
    for console in (paper(), terminal()):
        train(RichProgress([lambda *event: heard.append(event[1])], console=console, show=False))
        assert written(console) == ""
    assert heard == [1, 2, 3, 1, 2, 3]


def test_names_are_no_markup():
    console = terminal()
    progress = RichProgress(console=console)
    progress.start("[red]x[/red]", 1)
    progress.stop()
    assert "[red]x[/red]" in written(console)


def test_leaving_closes_the_display_even_in_the_middle():
    console = terminal()
    with pytest.raises(KeyError), RichProgress(console=console) as progress:
        progress.start("baseline", 10)
        raise KeyError("stop")
    assert written(console).rstrip().endswith("\x1b[?25h")


def test_a_step_costs_little():
    progress = RichProgress(console=terminal())
    progress.start("baseline", 100_000)
    began = time.perf_counter()
    for _ in range(20_000):
        progress.advance(1, loss=0.5)
    each = (time.perf_counter() - began) / 20_000
    progress.stop()
    assert each < 100e-6
