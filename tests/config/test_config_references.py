"""Secrets stay references from the command line to the saved configuration."""

from __future__ import annotations

import os

import pytest
import yaml

from bigopt.config import Checked, check
from bigopt.config._references import hide_in_overrides, hide_secrets, read
from bigopt.store.redaction import redact
from bigopt.vocabulary.errors import RequestError

BASE = {"model": {"name": "resnet"}, "dataset": {"name": "digits"}}


@pytest.fixture(autouse=True)
def clean_environment():
    before = dict(os.environ)
    yield
    for name in set(os.environ) - set(before):
        del os.environ[name]


@pytest.mark.parametrize(
    ("line", "secret", "rest"),
    [
        ("tracking.uri=postgresql://user:pa55-w0rd@host/db", "pa55-w0rd", "postgresql://user:"),
        ("tracking.uri=postgresql://user:p@ss/x@host/db", "p@ss/x", "@host/db"),
        ("hydra.sweeper.storage=postgresql://u:longsecret@h/db", "longsecret", "@h/db"),
        ("tracking.uri='https://u:quoted@h'", "quoted", "@h'"),
        ("+x.api_key=abcdef", "abcdef", "+x.api_key="),
        ("tracking.uri='https://h/?token=abc123&x=1'", "abc123", "&x=1"),
        ("transfer.source={dataset:{password:abcdef},n:1}", "abcdef", "n:1"),
    ],
)
def test_a_secret_on_the_command_line_becomes_a_reference(line, secret, rest):
    (hidden,) = hide_in_overrides([line])
    assert secret not in hidden
    assert rest in hidden
    assert "${oc.env:BIGOPT_SECRET_" in hidden
    assert secret in os.environ.values()
    assert secret not in redact(f"a log that says {secret}")


HARMLESS = [
    "seed=1",
    "model=resnet",
    "compression=[a,b]",
    "tracking.uri=sqlite:///mlflow.db",
    "tracking.uri=http://127.0.0.1:5000",
    "a=${oc.env:HOME}",
    "seed=1,2",
    "~x",
    "bad",
]


@pytest.mark.parametrize("line", HARMLESS)
def test_what_is_no_secret_stays(line):
    assert hide_in_overrides([line]) == [line]


def test_hidden_overrides_still_mean_the_same(composed):
    lines = hide_in_overrides(["tracking.uri=postgresql://user:pa55@host/db"])
    cfg = composed(*lines)
    assert cfg.tracking.uri == "postgresql://user:pa55@host/db"


def test_values_are_read_and_references_are_kept(monkeypatch, tmp_path):
    monkeypatch.setenv("MY_URI", "postgresql://u:topsecret@h/db")
    checked = check({**BASE, "tracking": {"uri": "${oc.env:MY_URI}", "experiment": "${tracking.uri}-x"}})
    assert checked.settings.tracking.uri == "postgresql://u:topsecret@h/db"
    assert checked.resolved["tracking"]["uri"] == "${oc.env:MY_URI}"
    text = checked.save(tmp_path).read_text()
    assert "topsecret" not in text
    assert Checked.load(tmp_path).settings.tracking.uri == "postgresql://u:topsecret@h/db"
    assert "topsecret" not in redact("said topsecret aloud: postgresql://u:topsecret@h/db")


def test_a_number_or_a_path_from_the_environment_is_no_secret(monkeypatch, tmp_path):
    monkeypatch.setenv("MY_SEED", "20250131")
    monkeypatch.setenv("MY_ROOT", str(tmp_path))
    checked = check({**BASE, "seed": "${oc.decode:${oc.env:MY_SEED}}", "cache": "${oc.env:MY_ROOT}/cache"})
    assert checked.seed == 20250131
    assert redact(f"20250131 {tmp_path}") == f"20250131 {tmp_path}"


def test_an_unset_variable_is_named():
    with pytest.raises(RequestError, match=r"tracking\.uri: .*NOT_SET_ANYWHERE"):
        check({**BASE, "tracking": {"uri": "${oc.env:NOT_SET_ANYWHERE}"}})


def test_other_interpolations_are_resolved():
    values, references = read({"a": 1, "b": "${a}", "c": [{"d": "x${a}"}]})
    assert values == references == {"a": 1, "b": 1, "c": [{"d": "x1"}]}


def test_secrets_in_files_are_moved_too():
    hidden = hide_secrets({"tracking": {"uri": "http://u:filesecret@h"}, "list": [{"password": "other"}]}, "file")
    assert "filesecret" not in yaml.safe_dump(hidden)
    assert "other" not in yaml.safe_dump(hidden)
    assert os.environ["BIGOPT_SECRET_FILE_TRACKING_URI"] == "filesecret"
