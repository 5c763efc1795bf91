import subprocess
import sys

import pytest
from report_fakes import compressed, dataset, labels, make_ledger, measure, outputs
from rich.table import Table

from bigopt.report import format as show
from bigopt.report import render_summary, render_table
from bigopt.vocabulary.settings import Budget, Settings


@pytest.fixture
def report(tmp_path):
    y = labels()
    ledger = make_ledger(tmp_path, dataset(notes=("resized",)), Settings(budget=Budget(max_bytes=30000)))
    compressed(ledger)
    ledger.add("control", None, measure(outputs(y, range(1)), y), recovery_epochs=2, seconds=0, control=True)
    ledger.data.read_test()
    ledger.test(outputs(y, range(2)), outputs(y, range(8)), y)
    return ledger.finish("finished", html=False)


def test_80_columns_hold_every_figure_with_its_ratio_below(report):
    lines = render_table(report, width=80, plain=True).splitlines()
    assert max(len(line) for line in lines) <= 80
    row = next(index for index, line in enumerate(lines) if line.startswith("pruning"))
    assert lines[row].split() == ["pruning", "95.0%", "3.0", "61.7K", "100K", "31.3", "KB", "0.110", "20.1"]
    assert lines[row + 1].split()[-3:] == ["8.00×", "2.00×", "3.00×"]
    assert lines[row + 1].split()[0].startswith("[")


def test_a_wide_terminal_has_one_line_a_stage(report):
    lines = render_table(report, width=140, plain=True).splitlines()
    step = next(line for line in lines if line.startswith("pruning"))
    assert "31.3 KB 8.00×" in step
    assert "0.110 2.00×" in step
    assert "20.1 3.00×" in step
    low, high = (100 * end for end in report["stages"][1]["drop_interval"])
    assert f"3.0 [{low:.1f}, {high:.1f}]" in step
    assert len([line for line in lines if line.strip()]) == 5  # head, rule, three stages


def test_the_control_is_marked(report):
    assert "(control)" in render_table(report, width=80, plain=True)


def test_it_is_plain_without_a_terminal_and_a_table_with_one(report, monkeypatch):
    monkeypatch.setattr("sys.stdout.isatty", lambda: False, raising=False)
    text = render_table(report)
    assert isinstance(text, str)
    assert "\x1b" not in text
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    assert isinstance(render_table(report), Table)


def test_square_brackets_in_names_are_text(tmp_path):
    y, ledger = labels(), make_ledger(tmp_path)
    ledger.add("[bold]x[/]", None, measure(outputs(y, range(4)), y), recovery_epochs=0, seconds=0)
    assert "[bold]x[/]" in render_table(ledger.report(), width=100, plain=True)


def test_the_closing_screen_says_all_that_matters(report, tmp_path):
    text = render_summary(report, tmp_path, "sqlite:///mlflow.db", width=200, plain=True)
    for expected in (
        "finished: 8.00× smaller, 2.00× faster at batch 1, 3.00× faster at batch 256, drop of val/accuracy 3.0 [",
        "better of baseline and control: control; drop against it 4.5 [",
        "test/accuracy: 99.0% → 96.0%, drop 3.0 [",
        "test split read 1×",
        "budget missed: max_bytes",
        "note: resized",
        f"files: {tmp_path}",
        "report.json, report.csv",
        "MLflow UI: bigopt ui   (runs are in sqlite:///mlflow.db)",
    ):
        assert expected in text, expected
    assert "MLflow" not in render_summary(report, tmp_path, None, width=200, plain=True)


def test_a_run_that_failed_before_its_first_stage_says_why(tmp_path):
    report = make_ledger(tmp_path).finish("failed", "the loss is not finite at step 7", html=False)
    text = render_summary(report, tmp_path, None, width=100, plain=True)
    assert "failed: no stage was completed" in text
    assert "the loss is not finite at step 7" in text


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        (show.count(61706), "61.7K"),
        (show.count(999), "999"),
        (show.count(999_950), "1.00M"),
        (show.count(426516480), "427M"),
        (show.count(None), "–"),
        (show.size(250112), "250 KB"),
        (show.size(512), "512 B"),
        (show.size(45_020), "45.0 KB"),
        (show.size(3_200_000), "3.20 MB"),
        (show.milliseconds(0.11234), "0.112 ms"),
        (show.milliseconds(20.07), "20.1 ms"),
        (show.times(1), "1.00×"),
        (show.times(12.34), "12.3×"),
        (show.times(123.4), "123×"),
        (show.seconds(75.2), "1 min 15 s"),
        (show.seconds(7322), "2 h 2 min"),
        (show.metric_text("val/accuracy", 0.97222), "97.2%"),
        (show.metric_text("val/rmse", 12.3456), "12.35"),
        (show.drop_text("val/accuracy", 0.0042, (-0.003, 0.011)), "0.4 [-0.3, 1.1] points"),
        (show.drop_text("val/accuracy", -0.0001), "0.0 points"),
        (show.drop_text("val/loss", 0.012, (0.001, 0.02)), "0.0120 [0.00100, 0.0200]"),
        (show.drop_text("val/loss", None), "–"),
        (show.significant(1234.5), "1234"),
        (show.significant(1e9), "1.00e+09"),
        (show.significant(float("inf")), "–"),
        (show.shortened("channel_pruning", 9), "chan…ning"),
    ],
)
def test_figures_as_people_read_them(made, expected):
    assert made == expected


def test_showing_a_report_imports_neither_torch_nor_matplotlib():
    code = (
        "import sys; from bigopt.report import render_summary, render_table, value_of; import bigopt.cli.progress;"
        "print([name for name in ('torch', 'matplotlib', 'numpy', 'mlflow') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
