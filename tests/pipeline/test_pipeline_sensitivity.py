"""The sensitivity scan as an option of a step: table, picture, cells that are not computed twice."""

import pytest
import torch
from train.train_fakes import cnn, data, make_run

from bigopt.pipeline import driver
from bigopt.pipeline.cells import Cells, cells_key
from bigopt.pipeline.notes import Collected
from bigopt.pipeline.spine import step_epochs
from bigopt.vocabulary.network import Network
from bigopt.vocabulary.part import Part
from bigopt.vocabulary.run import History
from bigopt.vocabulary.settings import Recover, StepOptions


class Scale(Part):
    """Multiplies one layer's weights; counts how often it is asked."""

    strengths = (0.25, 0.5, 1.0)

    def __init__(self, ratio=0.5):
        self.ratio = ratio
        self.calls = []
        self.rows = None

    def strength(self):
        return self.ratio

    def layers(self, run):
        return ["net.0", "net.5"]

    def apply(self, run, strength, only=None):
        self.calls.append((only, strength))
        for name in self.layers(run) if only is None else [only]:
            with torch.no_grad():
                run.model.get_submodule(name).weight.mul_(1 - strength)

    def scanned(self, run, rows):
        self.rows = rows


def no_fit(run, epochs=None, *, lr=None, name="fit", parts=None, share=False):
    return History(name)


@pytest.fixture
def run(tmp_path):
    run = make_run(tmp_path, Network(cnn()), data(image=True))
    run.report = Collected()
    return run


SCAN = StepOptions(sensitivity=True, recover=Recover(epochs=0))


def test_the_option_writes_table_and_picture_and_tells_the_part(run):
    part = Scale()
    driver.compress(run, "scale", part, SCAN, no_fit)
    rows = run.report.tables["sensitivity_scale"]
    assert [(row["layer"], row["strength"]) for row in rows] == [
        (layer, strength) for layer in ("net.0", "net.5") for strength in (0.25, 0.5, 1.0)
    ]
    assert part.rows == rows
    assert (run.folder / "plots" / "sensitivity_scale.png").read_bytes().startswith(b"\x89PNG")
    assert part.calls[-1] == (None, 0.5)  # the step itself comes after the scan
    reference = driver.score(run, run.baseline) if run.baseline is not None else None
    assert reference is None


def test_a_cell_is_what_applying_by_hand_gives(run):
    part = Scale()
    rows = driver.sensitivity(run, part)
    trial = run.fork()
    part.apply(trial, 1.0, only="net.5")
    value = driver.score(trial, trial.model)
    expected = run.monitor.drop(value, driver.score(run, run.model))
    assert rows[-1] == {"layer": "net.5", "strength": 1.0, "value": value, "drop": expected}


def test_without_the_option_nothing_is_scanned(run):
    part = Scale()
    driver.compress(run, "scale", part, StepOptions(recover=Recover(epochs=0)), no_fit)
    assert part.calls == [(None, 0.5)]
    assert not (run.folder / "plots").exists() and part.rows is None


def test_finished_cells_are_not_computed_again(run):
    before = driver.frozen_copy(run.model)
    first, again = Scale(), Scale()
    driver.compress(run, "scale", first, SCAN, no_fit)
    table = run.report.tables["sensitivity_scale"]
    run.model = before
    driver.compress(run, "scale", again, SCAN, no_fit)
    assert again.calls == [(None, 0.5)]
    assert run.report.tables["sensitivity_scale"] == table
    assert run.report.values["sensitivity"] == {"cells": 6, "known_before": 6}


def test_a_scan_that_was_cut_off_goes_on_where_it_was(run, monkeypatch):
    class Killed(BaseException):
        pass

    part = Scale()
    real = driver.score
    left = [4]

    def dying(trial, model):
        if not left[0]:
            raise Killed
        left[0] -= 1
        return real(trial, model)

    monkeypatch.setattr(driver, "score", dying)
    with pytest.raises(Killed):
        driver.compress(run, "scale", part, SCAN, no_fit)
    monkeypatch.setattr(driver, "score", real)
    resumed = Scale()
    driver.compress(run, "scale", resumed, SCAN, no_fit)
    assert resumed.calls == [("net.5", 0.25), ("net.5", 0.5), ("net.5", 1.0), (None, 0.5)]


def test_cells_of_another_model_or_a_torn_file_are_not_believed(run):
    path = run.folder / "sensitivity" / "scale.json"
    cells = Cells(path, cells_key(run, Scale()))
    cells.put("net.0", 0.5, 0.25)
    assert Cells(path, cells_key(run, Scale())).get("net.0", 0.5) == 0.25
    key = cells_key(run, Scale())
    with torch.no_grad():
        run.model.net[0].weight[0, 0, 0, 0] += 1
    assert cells_key(run, Scale()) != key
    assert Cells(path, cells_key(run, Scale())).get("net.0", 0.5) is None
    path.write_bytes(path.read_bytes()[:20])
    assert len(Cells(path, key)) == 0


def test_a_method_without_strength_is_named(run):
    driver.compress(run, "plain", Part(), SCAN, no_fit)
    assert any("nothing to scan" in note for note in run.report.notes)


def test_the_control_gets_what_the_preparation_trains_as_well(run):
    class Trains(Part):
        def extra_epochs(self, run):
            return 3

    assert step_epochs(run, Trains(), StepOptions(recover=Recover(epochs=2))) == 5
    assert driver.compress(run, "t", Trains(), StepOptions(recover=Recover(epochs=2)), no_fit).epochs == 5
