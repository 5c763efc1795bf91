"""Secrets that reach the tracker by configuration, environment, URI or error are found nowhere in what it leaves."""

import json
import logging
import os
from pathlib import Path
from urllib.parse import quote

import pytest

from bigopt.store import register_secret
from bigopt.tracking import make_tracker
from bigopt.vocabulary.settings import Tracking

SECRETS = {
    "environment": "env-s3cret/with ünusual+chars",
    "configured": "conf-s3cret",
    "override": "over-s3cret",
    "password": "uri-s3cret@x",
    "query": "query-s3cret",
}


def assert_nowhere(folder: Path, text: str = "") -> None:
    """None of the secrets, in none of their encodings, in any file or file name under the folder, or in the text."""
    forms = set()
    for secret in SECRETS.values():
        forms |= {secret, quote(secret), quote(secret, safe=""), json.dumps(secret)[1:-1]}
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert len(files) > 3
    for path in files:
        content = path.read_bytes()
        for form in forms:
            assert form.encode() not in content and form not in str(path), (path, form)
    assert not [form for form in forms if form in text]


def tracked(project: Path, uri: str | None) -> None:
    register_secret(SECRETS["environment"])
    folder = project / "runs" / "r"
    folder.mkdir(parents=True)
    tracker = make_tracker(Tracking(uri=uri), folder, project)
    params = {
        "tracking": {"uri": uri, "api_key": SECRETS["configured"]},
        "dataset": {"root": f"/data/{SECRETS['environment']}", "list": [SECRETS["environment"]]},
        SECRETS["environment"]: 1,
        "url": f"http://h/x?token={SECRETS['query']}",
    }
    tags = {"overrides": f"a.password={SECRETS['override']} tracking.uri={uri} b={SECRETS['environment']}"}
    tracker.start(f"run {SECRETS['environment']}", params, tags)
    tracker.epoch(SECRETS["environment"], 1, {"loss": 1.0, SECRETS["environment"]: 2.0})
    tracker.stage(SECRETS["environment"], {"x": 1.0}, 1)
    tracker.artifact(project / "file.txt", SECRETS["environment"])
    tracker.finish("failed", f"cannot open {SECRETS['environment']} at {uri}")


@pytest.mark.parametrize("kind", ["sqlite", "http", "postgresql"])
def test_secrets_are_nowhere(project, kind, caplog, capfd, monkeypatch):
    caplog.set_level(logging.DEBUG)
    for name in ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"):
        monkeypatch.setenv(name, "")  # restored afterwards, whatever the tracker sets
    (project / "file.txt").write_text("x")
    user = f"me:{quote(SECRETS['password'], safe='')}@127.0.0.1:1"
    tracked(project, {"sqlite": None, "http": f"http://{user}/", "postgresql": f"postgresql://{user}/db"}[kind])
    shown = capfd.readouterr()
    assert_nowhere(project, caplog.text + shown.out + shown.err)
    assert "failed" in (project / "runs/r/tracking.jsonl").read_text()
    if kind == "http":
        assert os.environ["MLFLOW_TRACKING_PASSWORD"] == SECRETS["password"]
        assert os.environ["MLFLOW_TRACKING_USERNAME"] == "me"
        assert "127.0.0.1:1" in caplog.text  # the server is named, its credentials are not


def test_the_search_for_secrets_finds_them(tmp_path):
    for name in "abcd":
        (tmp_path / name).write_text("x" + SECRETS["query"] if name == "c" else "x")
    with pytest.raises(AssertionError):
        assert_nowhere(tmp_path)
