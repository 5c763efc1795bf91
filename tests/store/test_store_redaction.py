"""Secrets are masked in every form in which they reach a log, a report or a tracking server."""

import json
import time
from collections import namedtuple
from pathlib import Path
from urllib.parse import quote

import pytest

from bigopt.store import MASK, redact, redaction, register_secret, register_secrets, secret_key


@pytest.fixture(autouse=True)
def forget(monkeypatch):
    monkeypatch.setattr(redaction, "_secrets", set())


SECRET = 'hunt"er2/ä\\x y'


def test_registered_secret_is_masked_in_every_encoding():
    assert register_secret(SECRET)
    forms = [SECRET, quote(SECRET), quote(SECRET, safe=""), json.dumps(SECRET), json.dumps(SECRET, ensure_ascii=False)]
    for text in [*forms, repr(SECRET), f"a{SECRET}b", f"http://h/{quote(SECRET, safe='')}?x=1"]:
        masked = redact(text)
        assert MASK in masked and "hunt" not in masked and "er2" not in masked
    assert redact(f"a {SECRET} b") == "a *** b"


def test_longer_secrets_go_first():
    register_secret("abcd")
    register_secret("abcdefgh")
    assert redact("abcdefgh abcd") == "*** ***"


@pytest.mark.parametrize("value", [None, "", "a", "abc"])
def test_values_too_short_to_mask_are_not(value):
    assert not register_secret(value)
    assert redact("an abc a") == "an abc a"


def test_types_are_kept():
    register_secret("hunter22")
    register_secret("123456")
    Pair = namedtuple("Pair", "a b")
    value = {
        "plain": 1,
        "list": ["x", "hunter22"],
        "tuple": ("hunter22", 2.5, None, True),
        "pair": Pair("hunter22", 0),
        "path": Path("/a/hunter22/b"),
        "bytes": b"\xffhunter22",
        "number": 123456,
        "hunter22": "key",
    }
    assert redact(value) == {
        "plain": 1,
        "list": ["x", MASK],
        "tuple": (MASK, 2.5, None, True),
        "pair": Pair(MASK, 0),
        "path": Path("/a/***/b"),
        "bytes": b"\xff***",
        "number": MASK,
        MASK: "key",
    }
    assert value["list"] == ["x", "hunter22"]  # the original is untouched


@pytest.mark.parametrize(
    "name",
    ["password", "api_key", "apiKey", "API_KEY", "AWS_SECRET_ACCESS_KEY", "token", "hf-token", "githubToken", "key"]
    + [
        "tracking.password",
        "db/secret",
        "client_secret",
        "auth_token",
        "private_key",
        "credentials",
        "passwd",
        "+a.token",
    ],
)
def test_keys_that_look_secret(name):
    assert secret_key(name)
    assert redact({name: "abc"}) == {name: MASK}
    assert redact({name: 12345}) == {name: MASK}
    assert redact({"a": [{name: ["x", {"y": "z"}]}]}) == {"a": [{name: [MASK, {"y": MASK}]}]}
    assert redact(f"{name}=abc") == f"{name}=***"
    assert redact({name: None}) == {name: None}


@pytest.mark.parametrize(
    "name",
    ["tokens", "max_tokens", "tokenizer", "pad_token", "monkey", "keyboard", "sort_key", "monitor_key", "keys"]
    + ["secretary", "token_count", "password_file", "passive", "optimizer.lr", "author", "name", "key_points"],
)
def test_keys_that_do_not(name):
    assert not secret_key(name)
    assert redact({name: "abc"}) == {name: "abc"}
    assert redact(f"{name}=abc") == f"{name}=abc"


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("http://user:pass@host:5000/x", "http://***@host:5000/x"),
        ("https://tok3n@host/x", "https://***@host/x"),
        ("postgresql+psycopg://u:p%40ss@db/m?sslmode=on", "postgresql+psycopg://***@db/m?sslmode=on"),
        ("see http://u:p@a/ and ftp://v:w@b/.", "see http://***@a/ and ftp://***@b/."),
        ("http://u:p@ss/w:or@d@host/x", "http://***@host/x"),
        ("and...http://u:p@a", "and...http://***@a"),
        ("http://host:5000/a@v1", "http://host:5000/a@v1"),
        ("sqlite:///mlflow.db", "sqlite:///mlflow.db"),
        ("http://h/x?token=abc&y=1", "http://h/x?token=***&y=1"),
        ("url=http://h/x?api_key=a-b.c", "url=http://h/x?api_key=***"),
        ("Authorization: Bearer abcdef.ghijkl==", "Authorization: Bearer ***"),
        ("+a.api_key='b c' seed=1", "+a.api_key=*** seed=1"),
        ("{password: abc, lr: 0.1}", "{password: ***, lr: 0.1}"),
        ('{"password": "a\\"b", "lr": 1}', '{"password": "***", "lr": 1}'),
        ("{'api_key': 'abc', 'n': 1}", "{'api_key': '***', 'n': 1}"),
        ("unknown key: ratio; got token: x", "unknown key: ratio; got token: x"),
        ("password=null token=", "password=null token="),
        ("seed=3 compression=[a,b]", "seed=3 compression=[a,b]"),
        ("ghp_" + "a1" * 12, MASK),
    ],
)
def test_texts(text, masked):
    assert redact(text) == masked
    assert redact(masked) == masked


def test_references_stay_but_not_their_defaults():
    assert redact({"password": "${oc.env:DB_PW}"}) == {"password": "${oc.env:DB_PW}"}
    assert redact({"password": "${oc.env:DB_PW,null}"}) == {"password": "${oc.env:DB_PW}"}
    assert redact({"password": "${oc.env:DB_PW,fallback1}"}) == {"password": "${oc.env:DB_PW,***}"}
    assert redact("a.password=${oc.env:DB_PW,fallback1}") == "a.password=${oc.env:DB_PW,***}"


@pytest.mark.parametrize("text", ["e" * 200_000, "a://" * 50_000, "a=" * 50_000, "'a" * 20_000, "a.b-" * 50_000 + "="])
def test_long_texts_take_no_time(text):
    register_secret("hunter22")
    begun = time.perf_counter()
    redact(text)
    assert time.perf_counter() - begun < 5


def test_secrets_of_a_configuration_are_masked_elsewhere_too():
    register_secrets(
        {
            "tracking": {"uri": "http://me:sesame77@host/"},
            "extra": {"api_key": "key-4711", "hosts": ["a"], "token": {"value": "inner-99"}},
            "db": {"password": "${oc.env:PW}"},
        }
    )
    assert redact("sesame77 key-4711 inner-99 host a PW me") == "*** *** *** host a PW me"
