import copy
import json
import re
from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest
from report_fakes import compressed, dataset, history, labels, make_ledger, measure, outputs

from bigopt.report import render_html
from bigopt.report.plots import draw_all, to_svg
from bigopt.vocabulary.objective import Monitor
from bigopt.vocabulary.settings import Budget, Settings

HOSTILE = "<script>alert('x')</script> & \"$\\frac$ \u200b"
ROBUSTNESS = {
    "metric": "accuracy",
    "clean": 0.95,
    "corruptions": {"noise": {"1": 0.9, "3": 0.5}, "blur": {"1": 0.8, "3": 0.7}},
    "means": {"noise": 0.7, "blur": 0.75},
    "mean": 0.725,
    "worst_class": {"class": "seven", "accuracy": 0.625},
    "calibration_error": 0.02,
    "train_val_gap": 0.013,
    "epochs_to_target": None,
}


class Page(HTMLParser):
    """Collects tags, attributes and visible text, and insists that tags are balanced."""

    VOID = {"meta", "link", "br", "img", "hr", "input"}

    def __init__(self, markup):
        super().__init__(convert_charrefs=True)
        self.tags, self.attributes, self.words, self.open = [], [], [], []
        self.feed(markup)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)

    @property
    def text(self):
        return re.sub(r"\s+", " ", " ".join(self.words))


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished run with a control, robustness, a table and a budget; its folder, report and page."""
    folder = tmp_path_factory.mktemp("run")
    settings = Settings(budget=Budget(max_bytes=64000, max_drop=0.01))
    config = {"model": {"name": "resnet"}, "tracking": {"uri": "http://me:opensesame@host"}}
    ledger = make_ledger(
        folder, dataset(notes=("resized to 32×32",)), settings, config=config, environment={"cpu": "Z80"}
    )
    ledger.table("sensitivity", [{"layer": f"conv{i}", "drop": i / 1000} for i in range(250)])
    compressed(ledger, robustness=ROBUSTNESS)
    y = labels()
    ledger.add("control", None, measure(outputs(y, range(1)), y), recovery_epochs=2, seconds=0, control=True)
    ledger.data.read_test()
    ledger.test(outputs(y, range(2)), outputs(y, range(8)), y)
    (folder / "model.onnx").write_bytes(b"0" * 31264)
    report = ledger.finish("finished")
    return folder, report, Page((folder / "report.html").read_text())


def test_headline_verdict_and_table(finished):
    _, _, page = finished
    for expected in (
        "resnet on digits",
        "finished",
        "8.00× smaller: 31.3 KB ONNX",
        "2.00× faster at batch 1: 0.110 ms",
        "3.00× faster at batch 256: 20.1 ms",
        "3.0 points drop of val/accuracy, 95%",
        "missed budget: max_drop 3.0 points of 1.0 points; max_bytes 31.3 KB of 64.0 KB",
        "better of baseline and control: control; drop against it 4.5",
        "test/accuracy: 99.0% → 96.0%, drop 3.0",
        "(test split read 1×)",
        "how much worse than the baseline on 200 validation samples",
        "resized to 32×32",
        "Z80",
        "worst class 62.5% seven",
        "mean over corruptions 72.5%",
        "calibration error 0.02000",
        "gap, training to validation 1.3 points",
        "noise 70.0% 1: 90.0%, 3: 50.0%",
        "tables/sensitivity.csv; the first 200 of 250 rows",
    ):
        assert expected in page.text, expected


def test_the_page_needs_nothing_from_elsewhere(finished):
    folder, _, page = finished
    assert not {"script", "img", "link", "iframe", "object", "embed"} & set(page.tags)
    for name, value in page.attributes:
        if name in ("src", "href", "xlink:href", "action"):
            assert not re.match(r"(?i)\s*(https?:|//|data:|javascript:|file:|/)", value), value
    css = (folder / "report.html").read_text()
    assert "@import" not in css
    assert set(re.findall(r"url\(([^)]*)\)", css)) <= set(re.findall(r"url\((#[^)]*)\)", css))
    assert "prefers-color-scheme: dark" in css


def test_pictures_stand_in_the_page_and_as_png(finished):
    folder, _, page = finished
    assert page.tags.count("svg") == 4
    for name in ("tradeoff", "stages", "curves", "robustness"):
        assert (folder / "plots" / f"{name}.png").read_bytes().startswith(b"\x89PNG\r\n")
        assert f"plots/{name}.png" in page.text
    assert len((folder / "report.html").read_bytes()) < 400_000


def test_drops_by_another_metric_than_the_objective_are_drawn(tmp_path):
    ledger = make_ledger(tmp_path)
    ledger.monitor = Monitor("target/agreement", "max")
    compressed(ledger)
    report = ledger.report()
    for row, agreement in zip(report["stages"], (1.0, 0.9), strict=True):
        row["metrics"]["target/agreement"] = agreement
    assert report["drop_mode"] == "max" and "target/agreement" not in report["objective"]
    assert draw_all(report)["tradeoff"].axes[0].get_ylabel() == "target/agreement"
    render_html(report, tmp_path)
    assert "drop of target/agreement" in Page((tmp_path / "report.html").read_text()).text


def test_files_are_listed_with_sizes_and_secrets_masked(finished):
    folder, _, page = finished
    assert "model.onnx 31.3 KB" in page.text
    assert ("href", "tables/sensitivity.csv") in page.attributes
    assert "opensesame" not in (folder / "report.html").read_text()
    assert "http://***@host" in page.text


def test_control_and_final_rows_are_marked(finished):
    folder, _, _ = finished
    markup = (folder / "report.html").read_text()
    assert re.search(r'<tr class="control"><td>control', markup)
    assert re.search(r'<tr class="final"><td>pruning<small>channel_pruning</small>', markup)
    assert markup.count('<tr class="final">') == 1


def test_hostile_text_is_text(tmp_path):
    config = {"model": {"name": HOSTILE}, HOSTILE: [HOSTILE]}
    ledger = make_ledger(
        tmp_path, dataset(name=HOSTILE, notes=(HOSTILE,)), config=config, environment={HOSTILE: HOSTILE}
    )
    y = labels()
    ledger.note(HOSTILE)
    ledger.value(HOSTILE, HOSTILE)
    ledger.table(HOSTILE, [{HOSTILE: HOSTILE}])
    row = measure(outputs(y, range(4)), y)
    row.metrics[HOSTILE] = 0.5
    row.latency_ms = {HOSTILE: {"p50": 1.0, "p95": 2.0}}
    row.robustness = ROBUSTNESS | {"metric": HOSTILE, "corruptions": {HOSTILE: {"1": 0.5}}, "means": {HOSTILE: 0.5}}
    ledger.add(HOSTILE, HOSTILE, row, recovery_epochs=0, seconds=0, history=[history(HOSTILE)])
    (tmp_path / "a<b>&'.json").write_text("{}")
    ledger.finish("failed", HOSTILE)
    markup = (tmp_path / "report.html").read_text()
    assert "<script" not in markup
    page = Page(markup)
    assert page.text.count("<script>alert('x')</script>") >= 12
    assert "script" not in page.tags
    assert all(not name.startswith("on") for name, _ in page.attributes)
    assert ("href", "a%3Cb%3E%26%27.json") in page.attributes


def test_svg_is_well_formed_follows_the_theme_and_repeats(finished):
    _, report, _ = finished
    for figure, again in zip(draw_all(report).values(), draw_all(report).values(), strict=True):
        svg = to_svg(figure)
        ElementTree.fromstring(svg)
        assert "var(--ink)" in svg
        assert "#1f2430" not in svg
        assert svg == to_svg(again)


def test_error_bars_follow_the_interval_of_the_drop(finished):
    """0.95 with a drop of 0.03 in [low, high] lies between baseline - high and baseline - low."""
    _, report, _ = finished
    low, high = report["stages"][1]["drop_interval"]
    axes = draw_all(report)["tradeoff"].axes[0]
    bars = [part.get_segments()[0] for part in axes.collections if len(part.get_segments()) == 1]
    ends = next(bar for bar in bars if bar[0][0] == 31264)
    assert sorted(ends[:, 1]) == pytest.approx([0.98 - high, 0.98 - low])
    assert axes.get_xscale() == "log"


def test_error_bars_of_a_metric_to_minimise_point_the_other_way(tmp_path):
    ledger = make_ledger(tmp_path, settings=Settings(objective={"val/loss": "min"}))
    compressed(ledger)
    report = ledger.report()
    low, high = report["stages"][1]["drop_interval"]
    base = report["stages"][0]["metrics"]["val/loss"]
    axes = draw_all(report)["tradeoff"].axes[0]
    ends = next(p.get_segments()[0] for p in axes.collections if p.get_segments()[0][0][0] == 31264)
    assert sorted(ends[:, 1]) == pytest.approx([base + low, base + high])


def test_axes_over_decades_are_labelled_with_plain_numbers(finished):
    report = copy.deepcopy(finished[1])
    for epoch, row in enumerate(report["stages"][0]["history"][0]["epochs"]):
        row["lr"] = 10.0 ** -(2 + epoch * 2)
    curves = draw_all(report)["curves"]
    curves.canvas.draw()
    labels = [label.get_text() for label in curves.axes[-1].get_yticklabels()]
    assert "0.01" in labels and not any("$" in label for label in labels)


def test_learning_curves_hold_every_fit_in_turn(finished):
    _, report, _ = finished
    loss, objective, rate = draw_all(report)["curves"].axes
    train = [line for line in loss.lines if line.get_color() == "#f08c2e"]
    assert [list(line.get_xdata()) for line in train] == [[1, 2, 3], [4, 5]]
    assert list(train[1].get_ydata()) == [1.0, 0.5]
    assert [list(line.get_ydata()) for line in rate.lines[:2]] == [
        pytest.approx([1e-3, 5e-4, 1e-3 / 3]),
        pytest.approx([1e-3, 5e-4]),
    ]
    assert objective.get_ylabel() == "val/accuracy"


def test_robustness_is_averaged_over_corruptions_by_strength(finished):
    _, report, page = finished
    line = draw_all(report)["robustness"].axes[0].lines[0]
    assert list(line.get_xdata()) == [0, 1, 3]
    assert list(line.get_ydata()) == pytest.approx([0.95, 0.85, 0.6])
    assert "epochs to the target" not in page.text


def test_a_report_without_stages_latency_or_history_still_makes_a_page(tmp_path):
    ledger = make_ledger(tmp_path)
    ledger.finish("failed", "no data")
    page = Page((tmp_path / "report.html").read_text())
    assert "failed" in page.text and "no data" in page.text
    assert "svg" not in page.tags

    y, nothing = labels(), dict.fromkeys(("macs", "bops", "bytes", "bytes_zip", "size_ratio", "nonzero", "parameters"))
    ledger = make_ledger(tmp_path)
    bare = measure(outputs(y, range(4)), y, latency_ms=None, speedup=None, max_abs_diff=None, agreement=None, **nothing)
    ledger.add("baseline", None, bare, recovery_epochs=0, seconds=0)
    report = ledger.finish("finished")
    assert report["notes"] == []
    assert "98.0%" in Page((tmp_path / "report.html").read_text()).text


def test_the_page_can_be_drawn_again_from_report_json(finished, tmp_path):
    folder, _, _ = finished
    report = json.loads((folder / "report.json").read_text())
    path = render_html(report, tmp_path)
    assert path == tmp_path / "report.html"
    assert "8.00×" in path.read_text()
