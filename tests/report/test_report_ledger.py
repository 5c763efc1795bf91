import csv
import io
import json
import os
import stat

import pytest
import torch
from report_fakes import compressed, dataset, history, labels, make_ledger, measure, outputs

from bigopt.report import environment, value_of
from bigopt.report.stage import plain
from bigopt.store import register_secret
from bigopt.vocabulary.objective import Monitor
from bigopt.vocabulary.settings import Budget, Settings

CONTRACT = {
    "name",
    "plugin",
    "metrics",
    "drop",
    "drop_interval",
    "recovery_epochs",
    "parameters",
    "nonzero",
    "macs",
    "bops",
    "bytes",
    "bytes_zip",
    "latency_ms",
    "size_ratio",
    "speedup",
    "seconds",
}


def read(folder):
    return json.loads((folder / "report.json").read_text())


def test_a_row_has_the_fields_of_the_contract_with_their_values(tmp_path):
    ledger = make_ledger(tmp_path, seed=3, environment={"threads": 2})
    compressed(ledger)
    report = read(tmp_path)
    assert report["schema"] == 1
    assert report["seed"] == 3
    assert report["environment"] == {"threads": 2}
    assert report["objective"] == {"val/accuracy": "max"}
    assert report["n_val"] == 200
    assert report["data"] == {"name": "digits", "fingerprint": "f" * 64, "notes": []}
    baseline, step = report["stages"]
    assert set(step) == CONTRACT | {"notes", "values", "history"}
    assert (baseline["plugin"], step["plugin"]) == (None, "channel_pruning")
    assert baseline["metrics"]["val/accuracy"] == pytest.approx(0.98)
    assert (baseline["drop"], baseline["drop_interval"]) == (0.0, [0.0, 0.0])
    assert step["drop"] == pytest.approx(0.03)  # 6 of 200
    low, high = step["drop_interval"]
    assert low == pytest.approx(0.01, abs=0.0051)
    assert high == pytest.approx(0.055, abs=0.0051)
    assert step["values"]["resolvable"] is True
    assert step["recovery_epochs"] == 2
    assert step["size_ratio"] == 8.0
    assert step["latency_ms"]["batch_1"] == {"p50": 0.11, "p95": 0.14}
    assert step["history"][0]["name"] == "pruning/recover"
    assert [epoch["train/loss"] for epoch in step["history"][0]["epochs"]] == [1.0, 0.5]


def test_drop_of_a_metric_to_minimise_and_of_a_value_that_is_no_metric(tmp_path):
    for objective, expected, interval in (
        ({"val/loss": "min"}, 0.03 * 4.0, True),
        ({"bytes": "min"}, 31264 - 250112, False),
        ({"speedup.batch_1": "max"}, -1.0, False),
        ({"val/unknown": "max"}, None, False),
    ):
        ledger = make_ledger(tmp_path, settings=Settings(objective=objective))
        compressed(ledger)
        step = ledger.report()["stages"][1]
        assert step["drop"] == (None if expected is None else pytest.approx(expected, rel=1e-3))
        assert (step["drop_interval"] is not None) is interval


def test_a_drop_that_validation_cannot_resolve_is_noted(tmp_path):
    y, ledger = labels(), make_ledger(tmp_path)
    ledger.add("baseline", None, measure(outputs(y, range(4)), y), recovery_epochs=0, seconds=0)
    ledger.add("small", "p", measure(outputs(y, range(5)), y), recovery_epochs=0, seconds=0)
    row = ledger.report()["stages"][1]
    assert row["values"]["resolvable"] is False
    assert row["notes"] == [
        "val/accuracy: 200 validation samples cannot tell the drop (0.5 [0.0, 1.5] points) from none"
    ]
    assert "resolvable" not in ledger.report()["stages"][0]["values"]


def test_the_report_is_there_after_every_stage_as_running(tmp_path):
    y, ledger = labels(), make_ledger(tmp_path, settings=Settings(budget=Budget(max_bytes=64000)))
    ledger.add("baseline", None, measure(outputs(y, range(4)), y), recovery_epochs=0, seconds=1)
    report = read(tmp_path)
    assert (report["status"], report["error"], len(report["stages"])) == ("running", None, 1)
    assert report["budget"]["met"] is None
    assert report["test"] is None


def test_a_finished_run_is_judged_and_an_ended_one_says_why(tmp_path):
    budget = Settings(budget=Budget(max_bytes=64000, max_drop=0.02))
    ledger = make_ledger(tmp_path, settings=budget)
    compressed(ledger)
    report = ledger.finish("finished", html=False)
    assert report == read(tmp_path)
    assert report["budget"]["max_bytes"] == {"limit": 64000, "value": 31264, "met": True}
    assert report["budget"]["max_drop"]["met"] is False
    assert report["budget"]["met"] is False
    for status in ("failed", "interrupted", "pruned"):
        ledger = make_ledger(tmp_path, settings=budget)
        compressed(ledger)
        ledger.finish(status, "the loss is not finite at step 7", html=False)
        report = read(tmp_path)
        assert (report["status"], report["error"]) == (status, "the loss is not finite at step 7")
        assert report["budget"]["met"] is None


def test_the_control_stands_beside_the_steps_and_the_better_reference_is_used(tmp_path):
    y = labels()
    settings = Settings(budget=Budget(max_bytes=64000))
    ledger = make_ledger(tmp_path, settings=settings)
    ledger.add("baseline", None, measure(outputs(y, range(4)), y), recovery_epochs=0, seconds=0)
    step = measure(outputs(y, range(10)), y, bytes=31264)
    ledger.add("pruning", "channel_pruning", step, recovery_epochs=2, seconds=0)
    ledger.add("control", None, measure(outputs(y, range(1)), y), recovery_epochs=2, seconds=0, control=True)
    report = ledger.finish("finished", html=False)
    assert [row["name"] for row in report["stages"]] == ["baseline", "pruning", "control"]
    assert report["control"]["name"] == "control"
    assert report["control"]["better"] == "control"
    against = report["control"]["drops"]
    assert set(against) == {"pruning"}
    assert against["pruning"]["drop"] == pytest.approx(9 / 200)
    assert against["pruning"]["interval"][0] > 0.01
    assert report["stages"][1]["drop"] == pytest.approx(6 / 200)
    assert report["budget"]["max_bytes"]["value"] == 31264  # the control is not what ships

    ledger = make_ledger(tmp_path)
    ledger.add("baseline", None, measure(outputs(y, range(4)), y), recovery_epochs=0, seconds=0)
    ledger.add("control", None, measure(outputs(y, range(6)), y), recovery_epochs=2, seconds=0, control=True)
    ledger.add("pruning", "channel_pruning", step, recovery_epochs=2, seconds=0)
    control = ledger.report()["control"]
    assert control["better"] == "baseline"
    assert control["drops"]["pruning"]["drop"] == pytest.approx(6 / 200)


def test_the_test_split_is_judged_with_its_own_interval_and_reads(tmp_path):
    y, data = labels(), dataset()
    ledger = make_ledger(tmp_path, data)
    compressed(ledger)
    split = data.read_test()
    ledger.test(outputs(y, range(2)), outputs(y, range(8)), split.y, outputs(y, range(1)))
    test = read(tmp_path)["test"]
    assert test["baseline"]["test/accuracy"] == pytest.approx(0.99)
    assert test["final"]["test/accuracy"] == pytest.approx(0.96)
    assert test["control"]["test/accuracy"] == pytest.approx(0.995)
    assert test["drop"] == pytest.approx(0.03)
    assert 0.0 < test["drop_interval"][0] < 0.03 < test["drop_interval"][1] < 0.07
    assert test["test_reads"] == 1


def test_notes_values_and_tables_go_to_the_row_that_follows(tmp_path):
    y, ledger = labels(), make_ledger(tmp_path)
    ledger.add("baseline", None, measure(outputs(y, range(4)), y), recovery_epochs=0, seconds=0)
    ledger.note("layer conv9 was left alone")
    ledger.note("layer conv9 was left alone")
    ledger.value("kept", torch.tensor([1, 2]))
    ledger.table("sensitivity / conv", [{"layer": "conv1", "drop": 0.1}, {"layer": "conv,2", "strength": float("nan")}])
    ledger.add("p", "p", measure(outputs(y, range(60)), y), recovery_epochs=0, seconds=0, notes=["from the caller"])
    ledger.note("said after the last stage")
    report = ledger.finish("finished", html=False)
    assert report["stages"][0]["notes"] == []
    assert report["stages"][1]["notes"] == ["layer conv9 was left alone", "from the caller"]
    assert report["stages"][1]["values"]["kept"] == [1, 2]
    assert report["notes"] == ["said after the last stage"]
    table = report["tables"]["sensitivity / conv"]
    assert (table["stage"], table["file"]) == ("p", "tables/sensitivity_conv.csv")
    rows = list(csv.DictReader(io.StringIO((tmp_path / table["file"]).read_text())))
    assert rows == [
        {"layer": "conv1", "drop": "0.1", "strength": ""},
        {"layer": "conv,2", "drop": "", "strength": ""},
    ]


def test_values_that_are_not_finite_are_null_at_any_depth(tmp_path):
    y, ledger = labels(), make_ledger(tmp_path)
    ledger.value("deep", {"a": [1.0, float("inf"), {"b": float("nan")}], "t": torch.tensor([float("nan")])})
    changes = {"metrics": {"accuracy": float("nan")}, "latency_ms": {"batch_1": {"p50": float("inf"), "p95": 1.0}}}
    fit = history("fit", 2)
    fit.epochs[1]["val/loss"] = float("nan")
    ledger.add(
        "baseline", None, measure(outputs(y, range(4)), y, **changes), recovery_epochs=0, seconds=0, history=[fit]
    )
    text = (tmp_path / "report.json").read_text()
    row = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} in the report"))["stages"][0]
    assert row["metrics"] == {"val/accuracy": None}
    assert row["drop"] is None
    assert row["latency_ms"] == {"batch_1": {"p50": None, "p95": 1.0}}
    assert row["values"]["deep"] == {"a": [1.0, None, {"b": None}], "t": [None]}
    assert row["history"][0]["epochs"][1]["val/loss"] is None


def test_csv_has_one_flat_row_per_stage(tmp_path):
    compressed(make_ledger(tmp_path))
    rows = list(csv.DictReader(io.StringIO((tmp_path / "report.csv").read_text())))
    assert [row["name"] for row in rows] == ["baseline", "pruning"]
    assert float(rows[1]["val/accuracy"]) == pytest.approx(0.95)
    assert float(rows[1]["latency_ms.batch_256.p95"]) == 21.0
    assert float(rows[1]["speedup.batch_1"]) == 2.0
    assert float(rows[1]["drop_low"]) < float(rows[1]["drop"]) < float(rows[1]["drop_high"])
    assert rows[0]["plugin"] == ""
    assert not {"history", "notes", "values"} & set(rows[0])


def test_onnx_names_the_shipped_file_once_it_is_there(tmp_path):
    y, ledger = labels(), make_ledger(tmp_path)
    inside = measure(outputs(y, range(4)), y, onnx=tmp_path / "stages" / "baseline.onnx", max_abs_diff=2e-6)
    ledger.add("baseline", None, inside, recovery_epochs=0, seconds=0)
    assert ledger.report()["onnx"] == {"path": "stages/baseline.onnx", "max_abs_diff": 2e-6, "agreement": 1.0}
    (tmp_path / "model.onnx").write_bytes(b"x")
    assert ledger.report()["onnx"]["path"] == "model.onnx"


def test_secrets_are_masked_everywhere(tmp_path):
    register_secret("tiger-tail-99")
    y = labels()
    ledger = make_ledger(
        tmp_path, config={"tracking": {"uri": "postgresql://me:opensesame@host/db"}, "api_key": "k123456"}
    )
    ledger.note("could not reach tiger-tail-99")
    ledger.table("t", [{"x": "tiger-tail-99"}])
    ledger.add("baseline", None, measure(outputs(y, range(4)), y), recovery_epochs=0, seconds=0)
    ledger.finish("failed", "refused: tiger-tail-99")
    for path in tmp_path.rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            for secret in (b"tiger-tail-99", b"opensesame", b"k123456"):
                assert secret not in content, path
    assert read(tmp_path)["error"] == "refused: ***"


def test_rows_are_unique_and_the_baseline_comes_first(tmp_path):
    y, ledger = labels(), make_ledger(tmp_path)
    row = measure(outputs(y, range(4)), y)
    with pytest.raises(ValueError, match="first row is the baseline"):
        ledger.add("control", None, row, recovery_epochs=0, seconds=0, control=True)
    ledger.add("baseline", None, row, recovery_epochs=0, seconds=0)
    with pytest.raises(ValueError, match="'baseline' is in the ledger already"):
        ledger.add("baseline", None, row, recovery_epochs=0, seconds=0)


def test_another_rank_writes_nothing(tmp_path):
    ledger = make_ledger(tmp_path / "run", writes=False)
    ledger.table("t", [{"a": 1}])
    compressed(ledger)
    assert ledger.finish("finished")["stages"][1]["drop"] == pytest.approx(0.03)
    assert not (tmp_path / "run").exists()


def test_a_label_free_monitor_can_take_over(tmp_path):
    y, ledger = labels(), make_ledger(tmp_path)
    ledger.monitor = Monitor("target/agreement", "max")
    for name, agreement in (("baseline", 1.0), ("step", 0.9)):
        row = measure(outputs(y, range(4)), y, metrics={"target/agreement": agreement})
        ledger.add(name, None, row, recovery_epochs=0, seconds=0)
    report = ledger.report()
    assert report["stages"][1]["drop"] == pytest.approx(0.1)
    assert report["stages"][1]["drop_interval"] is None
    assert report["notes"] == ["drops are measured by target/agreement (max)"]


def test_a_report_that_cannot_be_written_is_an_error_and_the_old_one_stays(tmp_path, monkeypatch):
    ledger = make_ledger(tmp_path)
    compressed(ledger)
    before = (tmp_path / "report.json").read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        ledger.finish("finished", html=False)
    monkeypatch.undo()
    assert (tmp_path / "report.json").read_bytes() == before
    assert stat.S_ISREG((tmp_path / "report.csv").stat().st_mode)


def test_a_fault_of_the_drawing_costs_no_run(tmp_path, monkeypatch):
    import bigopt.report.plots

    def broken(_):
        raise ZeroDivisionError("no axis")

    monkeypatch.setattr(bigopt.report.plots, "draw_all", broken)
    ledger = make_ledger(tmp_path)
    compressed(ledger)
    with pytest.warns(UserWarning, match="report.html could not be drawn: ZeroDivisionError"):
        report = ledger.finish("finished")
    assert report["status"] == "finished"
    assert read(tmp_path)["notes"] == ["report.html could not be drawn: ZeroDivisionError: no axis"]


def test_value_of_finds_metrics_fields_and_paths():
    row = {"metrics": {"val/accuracy": 0.9}, "bytes": 7, "speedup": {"batch_1": 2.0}, "name": "x", "drop": None}
    assert value_of(row, "val/accuracy") == 0.9
    assert value_of(row, "bytes") == 7
    assert value_of(row, "speedup.batch_1") == 2.0
    for name in ("name", "drop", "speedup", "speedup.batch_2", "nothing", "bytes.x"):
        assert value_of(row, name) is None


def test_plain_keeps_integers_exact_and_makes_keys_text():
    assert plain({1: (2**60, True, None)}) == {"1": [2**60, True, None]}


def test_environment_says_versions_and_hardware_without_importing_them():
    facts = environment(2, precision="fp32")
    assert facts["torch"] == torch.__version__
    assert (facts["threads"], facts["precision"]) == (2, "fp32")
    assert facts["cpus"] >= 1
    assert facts["cpu"]
    assert isinstance(facts["cpu_features"], list)
    json.dumps(facts)
