from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hydra import compose, initialize
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig

from hydra_plugins.bigopt_sweeper.search_path import install

METHOD = '''
"""A method."""
raise RuntimeError("a plugin must not be imported to be configured")

class Method:
    """Does something."""

    needs = "trainable"
    leaves = "frozen"

    def __init__(self, ratio: float = 0.25, layers: tuple[str, ...] = (), extra: dict[str, int] | None = None,
                 criterion: str | Callable[..., float] = "l1") -> None: ...

def net(*, num_classes: int, depth: int = 3, label: str) -> None:
    """A net."""
'''


@pytest.fixture
def composed() -> Callable[..., DictConfig]:
    """Composes through Hydra's own API, with bigopt's source on the search path."""

    def run(*overrides: str, name: str = "config") -> DictConfig:
        install()
        GlobalHydra.instance().clear()
        with initialize(version_base="1.3", config_path=None):
            return compose(config_name=name, overrides=list(overrides))

    return run


@pytest.fixture
def stranger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Path]]:
    """Installs a tiny distribution with nothing but entry points, and the YAML files that are given."""

    def make(entries: str, source: str = METHOD, **files: str) -> Path:
        root = tmp_path / "site"
        package = root / "their_package"
        package.mkdir(parents=True)
        (package / "__init__.py").write_text("raise RuntimeError('imported')\n")
        (package / "method.py").write_text(source)
        for name, text in files.items():
            file = package / "conf" / name.replace("__", "/")
            file.parent.mkdir(parents=True, exist_ok=True)
            file.with_suffix(".yaml").write_text(text)
        info = root / "their_package-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: their-package\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(entries)
        monkeypatch.syspath_prepend(str(root))
        importlib.invalidate_caches()
        return package

    yield make
    for name in [name for name in sys.modules if name.startswith("their_package")]:
        del sys.modules[name]


@pytest.fixture
def subprocess_modules() -> Callable[[str], set[str]]:
    """Names of the modules that a fresh interpreter has loaded after some code."""
    import subprocess

    def run(code: str) -> set[str]:
        done = subprocess.run(
            [sys.executable, "-c", f"{code}\nimport sys; print('\\n'.join(sys.modules))"],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        return set(done.stdout.split())

    return run
