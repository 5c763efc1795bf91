"""Signatures that only running the code can tell."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fakes import install

from bigopt.registry import Computed, Plugin, bind, discovery, get, load, probe
from bigopt.vocabulary.errors import RequestError

SOURCE = """
from dataclasses import dataclass
from pathlib import Path
print("noise on standard output")
with open(Path(__file__).with_suffix(".log"), "a") as log:
    log.write("imported\\n")

@dataclass
class Theirs:
    '''Computed things.'''
    share: float = 1 / 4
    limit: float = float("inf")
    many: "tuple[int, ...]" = ()
    needs = "frozen"
"""


def imports(site: Path) -> int:
    log = site / "theirs.log"
    return len(log.read_text().splitlines()) if log.exists() else 0


def again() -> Plugin:
    discovery._discover.cache_clear()
    return get("compression", "theirs")


def test_computed_defaults_are_read_in_another_process(plugin: Callable[..., Plugin], site: Path) -> None:
    found = plugin(SOURCE)
    assert found.error is None and found.summary == "Computed things."
    assert [(a.name, a.annotation, a.default, a.required) for a in found.arguments or ()] == [
        ("share", "float", 0.25, False),
        ("limit", "float", Computed("inf"), False),
        ("many", "tuple[int, ...]", (), False),
    ]
    assert found.facts["needs"] == "frozen"
    assert "theirs" not in sys.modules
    assert load("compression", "theirs")(**bind(found, {"limit": None, "many": [1]}, "")).limit == float("inf")


def test_they_are_kept_by_the_hash_of_the_file(plugin: Callable[..., Plugin], site: Path, own_cache: Path) -> None:
    plugin(SOURCE)
    assert again() == again() and imports(site) == 1
    assert [path.suffix for path in own_cache.iterdir()] == [".json"]
    (site / "theirs.py").write_text(SOURCE.replace("1 / 4", "1 / 2"))
    assert (again().arguments or [])[0].default == 0.5
    assert imports(site) == 2


def test_a_change_in_the_file_of_a_base_counts_too(site: Path) -> None:
    base = "class Base:\n    def __init__(self, a=int(%d)): ...\n"
    files = {"theirs.py": "from other_base import Base\nclass Theirs(Base): ...\n", "other_base.py": base % 1}
    install(site, "theirs", {"compression": {"theirs": "theirs:Theirs"}}, files)
    assert (again().arguments or [])[0].default == 1
    (site / "other_base.py").write_text(base % 22)
    assert (again().arguments or [])[0].default == 22


def test_a_damaged_cache_is_read_anew(plugin: Callable[..., Plugin], site: Path, own_cache: Path) -> None:
    whole = plugin(SOURCE)
    (kept,) = own_cache.iterdir()
    for damage in ("", "[]", "3", '{"summary": 1}', kept.read_text()[:40]):
        kept.write_text(damage)
        assert again() == whole
    assert json.loads(kept.read_text())["summary"] == "Computed things."
    assert imports(site) == 6


def test_a_cache_that_cannot_be_written_costs_time_only(
    plugin: Callable[..., Plugin], site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert plugin(SOURCE).error is None
    assert again().error is None and imports(site) == 2


def test_a_commit_that_fails_leaves_nothing(
    plugin: Callable[..., Plugin], own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(probe.os, "replace", full)
    assert plugin(SOURCE).error is None
    assert list(own_cache.iterdir()) == []


def test_the_cache_folder_follows_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert probe.cache_folder() == Path(os.environ["XDG_CACHE_HOME"]) / "bigopt" / "signatures"
    monkeypatch.setenv("HOME", str(tmp_path))
    for unset in ("", "relative/folder"):  # the standard says that relative ones are to be ignored
        monkeypatch.setenv("XDG_CACHE_HOME", unset)
        assert probe.cache_folder() == tmp_path / ".cache" / "bigopt" / "signatures"


def test_a_failure_is_not_kept(plugin: Callable[..., Plugin], site: Path) -> None:
    found = plugin("import late_module\nTheirs = late_module.Class\n")
    assert found.error == "ModuleNotFoundError: No module named 'late_module'"
    (site / "late_module.py").write_text("class Class:\n    def __init__(self, a: int = 3): ...\n")
    assert [a.name for a in again().arguments or ()] == ["a"]


def test_a_plugin_that_never_ends(plugin: Callable[..., Plugin], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "TIMEOUT", 1.0)
    found = plugin("import time\ntime.sleep(60)\nTheirs = print\n")
    assert found.error == "importing theirs took more than 1 s"
    with pytest.raises(RequestError, match="took more than"):
        load("compression", "theirs")


def test_what_a_decorator_wraps_and_methods(site: Path) -> None:
    source = """
        import functools
        def wrap(f):
            @functools.wraps(f)
            def inner(*args, **kwargs): return f(*args, **kwargs)
            return inner
        @wrap
        def wrapped(a: int, b: float = 0.5): ...
        class Holder:
            @classmethod
            def make(cls, c: str = "x"): ...
        def positional(a, /): ...
        positional_too = positional
        """
    points = {"wrapped": "theirs:wrapped", "made": "theirs:Holder.make", "pos": "theirs:positional_too"}
    install(site, "theirs", {"models": points}, {"theirs.py": source})
    assert [(a.name, a.annotation) for a in get("models", "wrapped").arguments or ()] == [("a", "int"), ("b", "float")]
    assert [a.default for a in get("models", "made").arguments or ()] == ["x"]
    assert get("models", "pos").error == "positional-only arguments cannot be configured: a"
