"""A Part's own metrics reach epochs, rows and comparisons; a Part may bring other data and another monitor."""

from pathlib import Path

import pytest
import torch
from torch import nn
from train.train_fakes import data, linear, make_run

from bigopt.measure.stage import measure_stage
from bigopt.pipeline.driver import score
from bigopt.report import Ledger
from bigopt.report.format import drop_text
from bigopt.report.reading import first_objective
from bigopt.report.reading import test_line as line_of_the_test
from bigopt.train import Fitter
from bigopt.vocabulary.objective import Monitor
from bigopt.vocabulary.part import Part
from bigopt.vocabulary.run import recording
from bigopt.vocabulary.settings import Measure, Settings
from bigopt.vocabulary.task import Task


class Confident(Part):
    """Judges a model by the mean of its largest logit, which needs no labels."""

    def metrics(self, run, model, predict):
        return {"target/confidence": predict(run.data.val).amax(1).mean().item()}


def confidence(model, run):
    return model(run.data.val.x).amax(1).mean().item()


def test_epochs_carry_them_and_the_best_one_follows_a_monitor_among_them(tmp_path):
    run = make_run(tmp_path, linear(), monitor=Monitor("target/confidence", "min"), parts=[Confident()], max_epochs=4)
    history = Fitter(tmp_path)(run, 4)
    values = [row["target/confidence"] for row in history.epochs]
    assert history.best_epoch == 1 + values.index(min(values))
    assert min(values) == pytest.approx(confidence(run.model, run), abs=1e-5)


def test_models_are_compared_by_them(tmp_path):
    run = make_run(tmp_path, linear(), monitor=Monitor("target/confidence", "max"), parts=[Confident()])
    other = linear(seed=5)
    assert score(run, other) == pytest.approx(confidence(other, run), abs=1e-5)


@pytest.mark.parametrize("export", [False, True], ids=["memory", "file"])
def test_a_row_has_them(tmp_path, export):
    run = make_run(tmp_path, linear().eval(), parts=[Confident()])
    settings = Settings(measure=Measure(export=export, latency=False))
    stage = measure_stage(run, tmp_path, "baseline", settings)
    assert stage.metrics["target/confidence"] == pytest.approx(confidence(run.model, run), abs=1e-4)
    assert "val/accuracy" in stage.metrics


def test_a_module_s_input_can_be_tapped():
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    x = torch.randn(5, 3)
    with recording(model, ["2/input", "0"]) as seen:
        model(x)
    assert torch.equal(seen["2/input"], seen["0"].relu())
    assert not model[2]._forward_pre_hooks
    with pytest.raises(KeyError, match="nothing"), recording(model, ["nothing/input"]):
        pass


def test_the_ledger_judges_by_the_data_that_a_part_put_in_place(tmp_path):
    first, second = data(val=8), data(val=20)
    ledger = Ledger(Path(tmp_path), settings=Settings(), data=first, task=Task.of(first.schema))
    ledger.follow(second)
    assert ledger.report()["n_val"] == 20
    assert ledger._judge.y is second.val.y


def test_the_test_split_is_judged_by_the_objective_where_the_monitor_needs_no_labels(tmp_path):
    known = data()
    ledger = Ledger(Path(tmp_path), settings=Settings(), data=known, task=Task.of(known.schema))
    ledger.monitor = Monitor("target/agreement", "max")
    y = torch.tensor([0, 1, 2, 0])
    right = torch.eye(3)[y]
    wrong = right.clone()
    wrong[0] = torch.tensor([0.0, 1.0, 0.0])
    section = ledger.test(right, wrong, y)
    assert section["drop"] == pytest.approx(0.25)
    assert section["drop_interval"] is not None


def test_drops_by_a_label_free_monitor_are_called_so(tmp_path):
    known = data()
    ledger = Ledger(Path(tmp_path), settings=Settings(), data=known, task=Task.of(known.schema))
    assert ledger.report()["drop_metric"] == "val/accuracy"
    ledger.monitor = Monitor("target/agreement", "max")
    report = ledger.report()
    assert first_objective(report) == "target/agreement"
    assert drop_text("target/agreement", 0.125) == "12.5 points"
    ledger.test(torch.eye(3), torch.eye(3), torch.arange(3))
    assert line_of_the_test(ledger.report()).startswith("test/accuracy: 100.0% → 100.0%")
