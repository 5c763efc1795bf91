import pytest

from bigopt.report import judge_budget
from bigopt.vocabulary.settings import Budget

FINAL = {
    "metrics": {"val/accuracy": 0.97},
    "drop": 0.98 - 0.97,
    "bytes": 50112,
    "macs": 1000,
    "latency_ms": {"batch_1": {"p50": 0.11, "p95": 0.3}, "batch_256": {"p50": 20.1, "p95": 21.0}},
}


def test_every_limit_is_judged_by_its_value():
    verdict = judge_budget(Budget(max_drop=0.01, max_bytes=64000, max_latency_ms=0.1, max_macs=1000), FINAL)
    assert verdict == {
        "max_drop": {"limit": 0.01, "value": pytest.approx(0.01), "met": True},
        "max_bytes": {"limit": 64000, "value": 50112, "met": True},
        "max_latency_ms": {"limit": 0.1, "value": 0.11, "met": False},
        "max_macs": {"limit": 1000, "value": 1000, "met": True},
        "met": False,
    }


def test_rounding_of_floats_does_not_miss_a_budget_but_more_does():
    assert 0.98 - 0.97 > 0.01
    assert judge_budget(Budget(max_drop=0.01), FINAL)["met"] is True
    assert judge_budget(Budget(max_drop=0.0099), FINAL)["met"] is False
    assert judge_budget(Budget(max_bytes=50111), FINAL)["met"] is False


def test_a_limit_of_zero_is_a_limit():
    assert judge_budget(Budget(max_drop=0.0), FINAL)["met"] is False
    assert judge_budget(Budget(max_drop=0.0), FINAL | {"drop": -0.002})["met"] is True


def test_no_budget_or_no_final_row_gives_no_verdict():
    assert judge_budget(Budget(), FINAL) == {"met": None}
    verdict = judge_budget(Budget(max_bytes=10), None)
    assert verdict == {"max_bytes": {"limit": 10, "value": None, "met": None}, "met": None}


@pytest.mark.parametrize("latency", [{}, {"batch_1": {"p50": float("nan")}}, {"batch_1": {"p50": None}}])
def test_what_was_not_measured_does_not_meet_its_limit(latency):
    verdict = judge_budget(Budget(max_latency_ms=5.0), FINAL | {"latency_ms": latency})
    assert verdict["max_latency_ms"] == {"limit": 5.0, "value": None, "met": False}
    assert verdict["met"] is False
