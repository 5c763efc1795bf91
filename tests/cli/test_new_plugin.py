"""``bigopt new-plugin``: what it writes installs, is found, and passes its own tests."""

from __future__ import annotations

import ast
import json
import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from bigopt.cli.new_plugin import main, write
from bigopt.registry import GROUPS, discovery, get

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    discovery._discover.cache_clear()
    return tmp_path


def lay_out(folder: Path, site: Path) -> None:
    """Installs a written distribution by hand: its module and its metadata."""
    project = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
    (module,) = folder.glob("*.py")
    info = site / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    info.mkdir(parents=True)
    shutil.copy(module, site)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n")
    ((group, points),) = project["entry-points"].items()
    lines = [f"[{group}]", *(f"{name} = {target}" for name, target in points.items())]
    (info / "entry_points.txt").write_text("\n".join(lines))


def test_what_is_written_is_found_and_passes_its_own_tests(here: Path) -> None:
    for kind in GROUPS:
        assert main([kind, f"my_{kind}", "--folder", kind]) == 0
        written = sorted(str(path.relative_to(here / kind)) for path in (here / kind).rglob("*") if path.is_file())
        assert written == [f"bigopt_my_{kind}.py", "pyproject.toml", f"tests/test_my_{kind}.py"]
        text = "".join((here / kind / path).read_text() for path in written)
        assert not any(word in text.lower() for word in ("my_plugin", "myplugin", "my_function"))
        lay_out(here / kind, here / "site")
    environment = {**os.environ, "PYTHONPATH": f"{here / 'site'}{os.pathsep}{REPOSITORY}", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *(f"{kind}/tests" for kind in GROUPS)]
    done = subprocess.run(command, cwd=here, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "24 passed" in done.stdout


def test_pip_installs_it_with_nothing_but_its_entry_point(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pip", reason="pip is not installed in this environment")
    folder = write("compression", "by_pip", here / "anywhere")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    command += ["--disable-pip-version-check", "--target", str(here / "site"), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    environment = {**os.environ, "PYTHONPATH": str(here / "site")}
    listing = [sys.executable, "-m", "bigopt", "plugins", "compression", "--json"]
    found = {
        plugin["name"]: plugin
        for plugin in json.loads(subprocess.run(listing, env=environment, capture_output=True, check=True).stdout)
    }
    assert found["by_pip"]["distribution"] == "bigopt-by-pip" and found["by_pip"]["error"] is None
    assert found["by_pip"]["arguments"] == [
        {"name": "ratio", "type": "float", "required": False, "default": 0.5, "filled": False}
    ]
    code = "from bigopt.registry import build; print(build('compression', 'by_pip', {'ratio': 0.3}).strength())"
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert (done.stdout, done.returncode) == ("0.3\n", 0), done.stderr


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["model", "x"], "new-plugin: got kind 'model', expected one of models, datasets, compression"),
        (["models", "1x"], "new-plugin: got name '1x', expected letters, digits and _"),
        (["models", "a-b"], "new-plugin: got name 'a-b'"),
        (["models", "a b"], "new-plugin: got name 'a b'"),
        (["models", "../x"], "new-plugin: got name '../x'"),
        (["models", "_x"], "new-plugin: got name '_x'"),
        (["models", "x_"], "new-plugin: got name 'x_'"),
        (["models", "é"], "new-plugin: got name 'é'"),
        (["models", "x\n"], "new-plugin: got name 'x\\n'"),
        (["models", ""], "new-plugin: got name ''"),
        (["models", "class"], "new-plugin: got name 'class'"),
        (["models", "resnet"], "new-plugin: models already has a plugin 'resnet', of bigopt; choose another name"),
    ],
)
def test_a_wrong_request_writes_nothing(
    words: list[str], line: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith(f"bigopt: {line}") and captured.err.count("\n") == 1 and captured.out == ""
    assert list(here.iterdir()) == []


@pytest.mark.parametrize("words", [[], ["models"], ["models", "x", "--folder"], ["models", "x", "y"]])
def test_missing_words(words: list[str], here: Path) -> None:
    assert main(words) == 2
    assert list(here.iterdir()) == []


def test_nothing_is_overwritten(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "mine").mkdir()
    (here / "mine" / "notes.txt").write_text("keep")
    assert main(["models", "x", "--folder", "mine"]) == 2
    assert "mine is already there; nothing was overwritten" in capsys.readouterr().err
    assert [path.name for path in (here / "mine").rglob("*")] == ["notes.txt"]
    (here / "file").write_text("keep")
    assert main(["models", "x", "--folder", "file"]) == 2
    assert (here / "file").read_text() == "keep"
    (here / "empty").mkdir()
    assert main(["models", "x", "--folder", "empty"]) == 0
    assert main(["models", "x", "--folder", "empty"]) == 2


def test_a_folder_that_cannot_be_written(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "file").write_text("")
    assert main(["models", "x", "--folder", "file/below"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_it_says_how_to_go_on(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compression", "x", "--folder", "deep/er"]) == 0
    out = capsys.readouterr().out
    assert "pip install -e ./deep/er\n" in out and "bigopt 'compression=[x]'" in out


@pytest.mark.parametrize(
    ("kind", "name", "attribute"),
    [
        ("compression", "part", "PartPlugin"),
        ("transfer", "start", "StartPlugin"),
        ("compression", "l0_ball", "L0Ball"),
        ("datasets", "data", "data_plugin"),
        ("datasets", "moons", "moons"),
        ("datasets", "assemble", "assemble_plugin"),
        ("tuners", "print", "print_plugin"),
        ("models", "Big", "Big"),
    ],
)
def test_names_hide_none_of_the_templates(kind: str, name: str, attribute: str, here: Path) -> None:
    folder = write(kind, name)
    (target,) = tomllib.loads((folder / "pyproject.toml").read_text())["project"]["entry-points"][GROUPS[kind]].values()
    assert target == f"bigopt_{name}:{attribute}"
    tree = ast.parse((folder / f"bigopt_{name}.py").read_text())
    defined = [node.name for node in tree.body if isinstance(node, ast.ClassDef | ast.FunctionDef)]
    assert attribute in defined and len(defined) == len(set(defined))


def test_the_listing_reads_it_without_a_process(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from bigopt.registry import probe

    monkeypatch.setattr(probe, "_ask", lambda *_: {"error": "a process was asked"})
    for kind in GROUPS:
        lay_out(write(kind, f"quick_{kind}"), here / "site")
    monkeypatch.syspath_prepend(str(here / "site"))
    for kind in GROUPS:
        plugin = get(kind, f"quick_{kind}")
        assert plugin.error is None and plugin.summary and plugin.arguments
