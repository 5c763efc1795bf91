"""``bigopt doctor``: each check on a machine in order and on one that is not."""

from __future__ import annotations

import http.server
import json
import os
import socket
import sqlite3
import threading
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from bigopt.cli import doctor
from bigopt.cli._checks import Check, ask, hardware, packages
from bigopt.cli._checks.datasets import idx_check, packaged_check
from bigopt.cli._checks.services import folder_check, storage_check, tracking_check

ROOT = hasattr(os, "geteuid") and os.geteuid() == 0
FACTS = {"torch": "2.13.0", "cuda": None, "threads": 2, "capability": "AVX2", "gpus": [], "mps": False}


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole command without the processes that import torch."""
    monkeypatch.setattr(doctor, "torch_facts", lambda: (FACTS, ""))
    monkeypatch.setattr(doctor, "data_checks", lambda: iter([Check("data digits", "ok", "there")]))
    monkeypatch.setattr(doctor, "compiler_check", lambda: Check("compiler", "ok", "there"))
    monkeypatch.setattr(doctor, "package_checks", lambda: iter([Check("torch", "ok", "2.13.0")]))
    monkeypatch.setattr(doctor, "torchvision_check", lambda: Check("torchvision", "ok", "not installed"))


def test_a_machine_in_order(
    quick: None, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert doctor.main(["--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    by_name = {check["name"]: check for check in said["checks"]}
    assert {"python", "torch", "torchvision", "plugins", "torch loads", "cpu", "threads", "gpu"} <= set(by_name)
    assert {"compiler", "data digits", "working folder", "tracking", "storage"} <= set(by_name)
    assert by_name["tracking"]["line"] == f"{tmp_path / 'mlflow.db'} will be created"
    assert said["status"] in ("ok", "warn") and not (tmp_path / "mlflow.db").exists()
    assert doctor.main([]) == 0
    out = capsys.readouterr().out
    assert "\033" not in out and "ok    working folder" in out and out.rstrip().endswith("0 failures")


def test_an_essential_failure_gives_1_with_its_hint(
    quick: None, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "torchvision_check", lambda: Check("torchvision", "fail", "broken", "remove it"))
    assert doctor.main([]) == 1
    out = capsys.readouterr().out
    assert "fail  torchvision" in out and "→ remove it" in out and out.rstrip().endswith("1 failures")
    assert doctor.main(["--json"]) == 1
    assert json.loads(capsys.readouterr().out)["status"] == "fail"


def test_an_unknown_flag_gives_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert doctor.main(["--jsn"]) == 2
    assert "--jsn" in capsys.readouterr().err


def test_secrets_stay_unsaid(quick: None, capsys: pytest.CaptureFixture[str]) -> None:
    words = [
        "--tracking-uri",
        "http://ann:hunter2secret@127.0.0.1:9",
        "--storage",
        "mysql://bob:hunter3secret@127.0.0.1:9/x",
    ]
    for flag in ([], ["--json"]):
        doctor.main([*words, *flag])
        captured = capsys.readouterr()
        assert "hunter" not in captured.out + captured.err
        assert "127.0.0.1:9" in captured.out


def test_ranges_of_packages() -> None:
    found = version("packaging")
    judged = packages.judge(
        [
            "packaging>=1",
            "packaging<1",
            f"packaging!={found},>=1",
            "no-such-package-xyz>=3,<4",
            'optional-xyz; extra == "more"',
            'never-xyz; python_version < "3"',
        ]
    )
    lines = [(check.name, check.status, check.line, check.hint) for check in judged]
    assert lines == [
        (
            "no-such-package-xyz",
            "fail",
            "not installed (tested with <4,>=3)",
            "pip install 'no-such-package-xyz<4,>=3'",
        ),
        ("packaging", "ok", f"{found} (tested with >=1)", ""),
        ("packaging", "warn", f"{found} is outside the tested range <1", "pip install 'packaging<1'"),
        ("packaging", "fail", f"{found} must not be used", f"pip install 'packaging!={found},>=1'"),
    ]


def test_every_base_dependency_is_looked_at() -> None:
    names = {check.name for check in packages.package_checks()}
    assert {"torch", "hydra-core", "pytorch-lightning", "mlflow", "optuna", "onnxruntime"} <= names
    assert not names & {"timm", "pytest", "ruff"}
    assert packages.python_check().status == "ok"


def fake_package(folder: Path, name: str, found: str, source: str) -> None:
    info = folder / f"{name}-{found}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {found}\n")
    (folder / f"{name}.py").write_text(source)


TORCH = """
class _Anything:
    def __getattr__(self, name): return _Anything()
ops = _Anything()
"""


@pytest.mark.parametrize(
    ("found", "source", "status", "part"),
    [
        ("0.28.0", "raise RuntimeError('operator torchvision::nms does not exist')", "fail", "nms does not exist"),
        ("0.28.0", "import os; os.abort()", "fail", "ended with code"),
        ("0.28.0", "__version__ = '0.28.0'", "warn", "are different builds, though both load"),
        ("0.28.0+cpu", "print('noise'); __version__ = '0.28.0+cpu'", "ok", "loads beside torch 2.13.0+cpu"),
    ],
)
def test_torchvision_beside_torch(
    found: str, source: str, status: str, part: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_package(tmp_path, "torch", "2.13.0+cpu", TORCH)
    fake_package(tmp_path, "torchvision", found, source)
    monkeypatch.syspath_prepend(str(tmp_path))
    check = packages.torchvision_check()
    assert check.status == status and part in check.line
    assert ("pip uninstall torchvision" in check.hint) == (status != "ok")
    assert check.details["version"] == found


def test_without_torchvision_there_is_no_trouble(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(_name: str) -> str:
        raise packages.PackageNotFoundError

    monkeypatch.setattr(packages, "version", absent)
    assert packages.torchvision_check() == Check("torchvision", "ok", "not installed; only timm needs it")


def test_broken_plugins_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "ruin-1.dist-info").mkdir()
    (tmp_path / "ruin-1.dist-info" / "METADATA").write_text("Name: ruin\nVersion: 1\n")
    (tmp_path / "ruin-1.dist-info" / "entry_points.txt").write_text("[bigopt.recipe]\nruin = ruin_gone:X\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    check = packages.plugins_check()
    assert check.status == "warn" and "recipe ruin" in check.details["broken"]


def test_questions_survive_crashes(tmp_path: Path) -> None:
    assert ask("print('noise'); print('[1, 2]')") == ([1, 2], "")
    assert ask("raise KeyError('x')") == (None, "KeyError: 'x'")
    assert ask("import sys; sys.exit(3)") == (None, "the interpreter ended with code 3")
    assert ask("print('noise')") == (None, "it gave no answer")
    assert ask("import time; time.sleep(60)", timeout=0.5) == (None, "no answer in 0 s")


def test_torch_itself() -> None:
    facts, error = hardware.torch_facts()
    assert error == "" and facts["torch"] == version("torch") and facts["threads"] >= 1
    assert hardware.torch_check(facts, error).status == "ok"


def test_a_torch_that_does_not_load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "torch.py").write_text("raise ImportError('libtorch_cpu.so is missing')")
    monkeypatch.syspath_prepend(str(tmp_path))
    check = hardware.torch_check(*hardware.torch_facts())
    assert (check.status, check.line) == (
        "fail",
        "torch cannot be imported: ImportError: libtorch_cpu.so is missing",
    )


@pytest.mark.parametrize(
    ("flags", "machine", "status", "line"),
    [
        (
            "flags\t: sse avx2 avx512f avx512_vnni avx512_bf16 amx_tile",
            "x86_64",
            "ok",
            "avx2 yes, avx512 yes, vnni yes, bf16 yes, amx yes",
        ),
        ("flags\t: sse avx2 avx_vnni", "x86_64", "ok", "avx2 yes, avx512 no, vnni yes, bf16 no, amx no"),
        ("flags\t: sse", "x86_64", "warn", "avx2 no, avx512 no, vnni no, bf16 no, amx no"),
        ("Features\t: fp asimd asimddp bf16", "aarch64", "ok", "avx2 no, avx512 no, vnni yes, bf16 yes, amx no"),
    ],
)
def test_the_processor(flags: str, machine: str, status: str, line: str, tmp_path: Path) -> None:
    (tmp_path / "cpuinfo").write_text(f"processor\t: 0\nmodel name\t: Some CPU: fast\n{flags}\n\nprocessor\t: 1\n")
    check = hardware.cpu_check(tmp_path / "cpuinfo", machine)
    assert (check.status, check.line) == (status, f"Some CPU: fast: {line}")


def test_a_system_that_says_nothing_of_its_processor(tmp_path: Path) -> None:
    check = hardware.cpu_check(tmp_path / "nothing", "arm64")
    assert check.status == "ok" and check.details["features"] is None


@pytest.mark.parametrize(
    ("files", "threads", "status", "line"),
    [
        ({"cpu.max": "150000 100000\n"}, 8, "warn", "1.5 of them by quota, torch takes 8 threads"),
        ({"cpu.max": "max 100000\n"}, 1, "ok", "processors, torch takes 1 threads"),
        ({"cpu/cpu.cfs_quota_us": "50000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 1, "ok", "0.5 of them by quota"),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, 1, "ok", "processors, torch"),
        ({}, None, "ok", "processors"),
    ],
)
def test_threads(
    files: dict[str, str], threads: int | None, status: str, line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1}, raising=False)
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    check = hardware.threads_check({"threads": threads}, tmp_path)
    assert check.status == status and line in check.line and "OMP_NUM_THREADS=3" in check.line
    if status == "warn":
        assert check.hint.startswith("set trainer.threads=2:")


def test_gpus() -> None:
    gpu = {"name": "Card", "memory": 80 * 2**30, "bf16": True}
    assert hardware.gpu_check({"gpus": [gpu], "cuda": "12.8"}).line == "Card (80 GiB), CUDA 12.8"
    assert hardware.gpu_check(FACTS, nvidia=False).line == "none; everything runs on the processor"
    check = hardware.gpu_check(FACTS, nvidia=True)
    assert (check.status, check.line) == ("warn", "there is an NVIDIA GPU, but torch is a build without CUDA")
    assert "cannot use it" in hardware.gpu_check({**FACTS, "cuda": "12.8"}, nvidia=True).line


def test_compilers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check = hardware.compiler_check("no-such-compiler-xyz")
    assert check.status == "warn" and "trainer.compile=off" in check.hint
    faulty = tmp_path / "faulty"
    faulty.write_text("#!/bin/sh\necho 'program.cpp:1: fatal error: Python.h: No such file' >&2\nexit 1\n")
    faulty.chmod(0o755)
    monkeypatch.setenv("CXX", str(faulty))
    check = hardware.compiler_check()
    assert check.status == "warn" and "Python.h: No such file" in check.line
    faulty.write_text("#!/bin/sh\nexit 0\n")
    assert hardware.compiler_check().status == "ok"


def test_packaged_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert packaged_check("digits", "sklearn.datasets", "data/digits.csv.gz", "hint").status == "ok"
    (tmp_path / "hollow_pkg").mkdir()
    (tmp_path / "hollow_pkg" / "__init__.py").write_text("raise AssertionError('imported')")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert packaged_check("x", "hollow_pkg", "data.gz", "hint") == Check(
        "data x", "warn", "data.gz of hollow_pkg is not there", "hint"
    )


def test_idx_data(tmp_path: Path) -> None:
    stems = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images.idx3-ubyte", "t10k-labels.idx1-ubyte")
    here = tmp_path / "here"
    check = idx_check("mnist", [tmp_path / "a", here], "get it")
    assert (check.status, check.line, check.hint) == ("warn", f"not found in {tmp_path / 'a'}, {here}", "get it")
    here.mkdir()
    for stem in stems[:3]:
        (here / f"{stem}.gz").touch()
    assert idx_check("mnist", [here], "get it").line == f"{here} lacks t10k-labels"
    (here / stems[3]).touch()
    assert idx_check("mnist", [tmp_path / "a", here], "get it") == Check(
        "data mnist", "ok", str(here), "", {"path": str(here)}
    )


def test_folders_of_data_are_those_of_the_datasets(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from bigopt.cli._checks.datasets import data_checks

    monkeypatch.setenv("BIGOPT_DATA", str(tmp_path))
    (tmp_path / "mnist").mkdir()
    for stem in ("train-images", "train-labels", "t10k-images", "t10k-labels"):
        (tmp_path / "mnist" / f"{stem}-idx-ubyte").touch()
    found = {check.name: check for check in data_checks()}
    assert set(found) == {"data digits", "data mnist5k", "data fashion-mnist", "data mnist"}
    assert found["data mnist"].line == str(tmp_path / "mnist")
    assert found["data digits"].status == found["data mnist5k"].status == "ok"


def test_folders(tmp_path: Path) -> None:
    assert folder_check(tmp_path).status == "ok" and list(tmp_path.iterdir()) == []
    assert folder_check(tmp_path / "not" / "yet").status == "ok"
    (tmp_path / "file").touch()
    assert folder_check(tmp_path / "file").status == "fail"


@pytest.mark.skipif(ROOT, reason="root may write everywhere")
def test_a_folder_without_permission(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    assert folder_check(tmp_path).line.endswith("Permission denied")
    assert tracking_check(None, tmp_path).status == "fail"


def test_sqlite_stores(tmp_path: Path) -> None:
    assert tracking_check(None, tmp_path).line == f"{tmp_path.resolve() / 'mlflow.db'} will be created"
    file = tmp_path / "mlflow.db"
    sqlite3.connect(file).execute("CREATE TABLE t (a)").connection.close()
    assert tracking_check(None, tmp_path).status == "ok"
    assert storage_check("sqlite:///mlflow.db", tmp_path).status == "ok"
    holder = sqlite3.connect(file, isolation_level=None)
    holder.execute("BEGIN EXCLUSIVE")
    try:
        from bigopt.cli._checks import services

        services.PATIENCE, kept = 0.1, services.PATIENCE
        check = tracking_check("sqlite:///mlflow.db", tmp_path)
        services.PATIENCE = kept
    finally:
        holder.close()
    assert (check.status, check.line) == ("warn", f"{tmp_path.resolve() / 'mlflow.db'}: database is locked")
    file.write_bytes(b"no database at all" * 100)
    check = tracking_check(None, tmp_path)
    assert check.status == "fail" and "is damaged: file is not a database" in check.line
    (tmp_path / "plain").touch()
    check = tracking_check("sqlite:///plain/mlflow.db", tmp_path)
    assert check.status == "fail" and "cannot be created" in check.line


def test_storages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert storage_check(None, tmp_path).status == "ok"
    assert storage_check("journal.log", tmp_path) == Check("storage", "ok", f"journal file {tmp_path / 'journal.log'}")
    (tmp_path / "folder").mkdir()
    assert storage_check("folder", tmp_path).status == "fail"
    check = storage_check("oracle://x/y", tmp_path)
    assert check.status == "fail" and "expected a URI of one of sqlite, postgresql" in check.line
    assert storage_check("postgresql+nosuchdriverxyz://h/y", tmp_path).hint == "pip install nosuchdriverxyz"
    (tmp_path / "psycopg2.py").write_text("raise AssertionError('imported')")
    monkeypatch.syspath_prepend(str(tmp_path))
    with socket.create_server(("127.0.0.1", 0)) as server:
        uri = f"postgresql://u:topsecretpw@127.0.0.1:{server.getsockname()[1]}/db"
        check = storage_check(uri, tmp_path)
        assert check.status == "ok" and "topsecretpw" not in check.line
    check = storage_check(uri, tmp_path)
    assert check.status == "fail" and "cannot be reached" in check.line
    assert storage_check("postgresql://h:port/db", tmp_path).status == "fail"


class Health(http.server.BaseHTTPRequestHandler):
    """An MLflow server, as far as health goes; wants the password that the test sets."""

    wanted = ""

    def do_GET(self) -> None:
        """Answers ``/health``."""
        code = 404 if self.path != "/health" else 200 if self.headers.get("Authorization", "") == self.wanted else 401
        self.send_response(code)
        self.end_headers()
        self.wfile.write(b"OK")

    def log_message(self, *_: Any) -> None:
        """Says nothing."""


@pytest.fixture
def server() -> Iterator[str]:
    with http.server.HTTPServer(("127.0.0.1", 0), Health) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{running.server_port}"
        running.shutdown()


def test_servers(server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("USERNAME", "PASSWORD", "TOKEN"):
        monkeypatch.setenv(f"MLFLOW_TRACKING_{name}", "")
    assert tracking_check(f"http://{server}", tmp_path) == Check("tracking", "ok", f"http://{server} answers")
    assert tracking_check(f"http://{server}/wrong", tmp_path).line == f"http://{server}/wrong answers 404"
    monkeypatch.setattr(Health, "wanted", "Basic YW5uOnNlY3JldHB3")
    check = tracking_check(f"http://{server}", tmp_path)
    assert (check.status, check.line) == ("warn", f"http://{server} asks for credentials (401)")
    check = tracking_check(f"http://ann:secretpw@{server}", tmp_path)
    assert check.status == "ok" and "secretpw" not in check.line


def test_a_server_that_is_down_stops_nothing(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    check = tracking_check(f"http://127.0.0.1:{port}", tmp_path)
    assert check.status == "warn" and "cannot be reached" in check.line and "bigopt report --sync" in check.hint
    check = tracking_check("nonsense", tmp_path)
    assert check.status == "fail" and "tracking.uri: got 'nonsense'" in check.line
    assert tracking_check("file:///tmp/x", tmp_path).status == "warn"


def test_importing_the_doctor_is_light() -> None:
    found, error = ask(
        "import json, sys, bigopt.cli.doctor; "
        "print(json.dumps([n for n in ('torch', 'hydra', 'mlflow', 'optuna', 'numpy') if n in sys.modules]))"
    )
    assert (found, error) == ([], "")
