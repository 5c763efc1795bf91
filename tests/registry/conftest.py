from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fakes import install

from bigopt.registry import Plugin, discovery, get, probe


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Signatures go to a folder of the test's own; nothing that was found is kept for the next test."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    discovery._discover.cache_clear()
    yield probe.cache_folder()
    discovery._discover.cache_clear()


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty folder at the front of the search path; what was imported from it is forgotten afterwards."""
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))
    before = set(sys.modules)
    yield folder
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(folder)):
            del sys.modules[name]


@pytest.fixture
def plugin(site: Path) -> Callable[..., Plugin]:
    """Installs one compression plugin ``theirs`` and returns what the registry knows of it."""

    def make(source: str, attribute: str = "Theirs", kind: str = "compression", **files: str) -> Plugin:
        everything: dict[str, Any] = {f"{name.replace('__', '/')}.py": text for name, text in files.items()}
        install(site, "theirs", {kind: {"theirs": f"theirs:{attribute}"}}, {"theirs.py": source, **everything})
        return get(kind, "theirs")

    return make
