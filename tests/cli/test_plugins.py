"""``bigopt plugins``: what is listed, how fast, and that nothing is imported for it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from bigopt.cli.plugins import main
from bigopt.registry import GROUPS, discovery

METHOD = '''\
raise AssertionError("imported")
import torch
from typing import Literal
Criterion = Literal["l1", "l2"]
class Method:
    """Does something [bold] new.

    At length.
    """
    def __init__(self, ratio: float, criterion: Criterion = "l1", limit: float = float("nan"), many=(1, 2), **more): ...
def net(num_classes: int, width: int = 8): ...
'''


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two plugins in order and a broken one, in a distribution that is nothing but its entry points."""
    info = tmp_path / "their_methods-2.5.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: their-methods\nVersion: 2.5\n")
    (info / "entry_points.txt").write_text(
        "[bigopt.recipe]\ntheir_method = their_method:Method\ntheir_ruin = their_ruin:Gone\n"
        "[bigopt.models]\ntheir_net = their_method:net\n"
    )
    (tmp_path / "their_method.py").write_text(METHOD.replace('float("nan")', "1.5"))
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    discovery._discover.cache_clear()
    return tmp_path


def listed(capsys: pytest.CaptureFixture[str], *words: str) -> list[dict[str, Any]]:
    assert main([*words, "--json"]) == 0
    found: list[dict[str, Any]] = json.loads(capsys.readouterr().out)
    return found


def test_json_says_everything(site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = {plugin["name"]: plugin for plugin in listed(capsys)}
    assert {plugin["kind"] for plugin in found.values()} == set(GROUPS)
    assert found["their_method"] == {
        "kind": "recipe",
        "name": "their_method",
        "distribution": "their-methods",
        "version": "2.5",
        "target": "their_method:Method",
        "summary": "Does something [bold] new.",
        "arguments": [
            {"name": "ratio", "type": "float", "required": True, "filled": False},
            {"name": "criterion", "type": "Literal['l1', 'l2']", "required": False, "default": "l1", "filled": False},
            {"name": "limit", "type": "float", "required": False, "default": 1.5, "filled": False},
            {"name": "many", "type": "", "required": False, "default": [1, 2], "filled": False},
        ],
        "more_arguments": True,
        "error": None,
    }
    assert found["their_ruin"]["error"] == "module 'their_ruin' is not there"
    assert found["their_ruin"]["arguments"] is None
    assert [argument["filled"] for argument in found["their_net"]["arguments"]] == [True, False]


def test_a_computed_default_is_shown_as_text(site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = METHOD.replace('raise AssertionError("imported")\nimport torch\n', "")
    (site / "their_method.py").write_text(source)
    (found,) = (plugin for plugin in listed(capsys, "recipe") if plugin["name"] == "their_method")
    assert found["arguments"][2] == {
        "name": "limit",
        "type": "float",
        "required": False,
        "computed": "nan",
        "filled": False,
    }


def test_text_for_people(site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recipe"]) == 0
    out = capsys.readouterr().out
    assert "\033" not in out
    assert (
        "  their_method  their-methods 2.5\n"
        "    Does something [bold] new.\n"
        "      ratio: float  (required)\n"
        "      criterion: Literal['l1', 'l2'] = 'l1'\n"
        "      limit: float = 1.5\n"
        "      many = (1, 2)\n"
        "      and any further arguments\n"
        "  their_ruin  their-methods 2.5\n"
        "    broken: module 'their_ruin' is not there\n"
    ) in out
    assert "1 broken" in out
    assert "models" not in out
    main(["models"])
    assert "      num_classes: int  (from the data)\n      width: int = 8\n" in capsys.readouterr().out


def test_a_terminal_gets_colours_unless_it_wants_none(
    site: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    main(["recipe"])
    assert "\033[1;36mtheir_method\033[0m" in capsys.readouterr().out
    monkeypatch.setenv("NO_COLOR", "1")
    main(["recipe"])
    assert "\033" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["model"], "expected a kind: models, datasets, compression, transfer, tuners, recipe; did you mean models?"),
        (["qqq"], "plugins: got 'qqq', expected a kind"),
        (["--jsn"], "unrecognized arguments: --jsn"),
        (["models", "resnet"], "unrecognized arguments: resnet"),
    ],
)
def test_a_wrong_request(words: list[str], line: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 2
    captured = capsys.readouterr()
    assert line in captured.err and captured.out == ""


def test_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    assert "compression" in capsys.readouterr().out


def test_a_reader_that_goes_away_and_an_old_encoding(site: Path) -> None:
    command = f"{sys.executable} -m bigopt plugins | head -n 1"
    environment = {**os.environ, "PYTHONIOENCODING": "latin-1"}
    done = subprocess.run(command, shell=True, capture_output=True, text=True, env=environment)
    assert (done.returncode, done.stdout, done.stderr) == (0, "models\n", "")


def test_nothing_heavy_is_imported() -> None:
    code = (
        "import sys; from bigopt.cli.main import main; code = main(['plugins']); "
        "heavy = {'torch', 'hydra', 'mlflow', 'pytorch_lightning', 'optuna', 'rich', 'numpy'} & set(sys.modules); "
        "heavy |= {name for name in sys.modules if name.startswith('bigopt_plugins')}; "
        "sys.exit(str(heavy) if heavy else code)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_it_takes_less_than_three_times_the_import_of_hydra() -> None:
    def seconds(*words: str) -> float:
        start = time.perf_counter()
        subprocess.run([sys.executable, *words], check=True, stdout=subprocess.DEVNULL)
        return time.perf_counter() - start

    pairs = [(seconds("-m", "bigopt", "plugins"), seconds("-c", "import hydra")) for _ in range(5)]
    assert min(ours for ours, _ in pairs) < 3 * min(hydra for _, hydra in pairs)
