"""Processor, threads, GPU and compiler."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sysconfig
import tempfile
from pathlib import Path
from typing import Any

from bigopt.cli._checks.check import Check, ask

_TORCH = """
import json, torch
count = torch.cuda.device_count() if torch.cuda.is_available() else 0
gpus = [torch.cuda.get_device_properties(number) for number in range(count)]
print(json.dumps({
    "torch": torch.__version__, "cuda": torch.version.cuda or torch.version.hip, "threads": torch.get_num_threads(),
    "capability": torch.backends.cpu.get_cpu_capability(),
    "gpus": [{"name": gpu.name, "memory": gpu.total_memory, "bf16": torch.cuda.is_bf16_supported()} for gpu in gpus],
    "mps": torch.backends.mps.is_available(),
}))
"""
_FEATURES = {
    "avx2": ("avx2",),
    "avx512": ("avx512f",),
    "vnni": ("avx512_vnni", "avx_vnni", "asimddp"),
    "bf16": ("avx512_bf16", "bf16"),
    "amx": ("amx_tile",),
}
"""Features that decide speed, each with the flags by which Linux names them."""

_PROGRAM = "#include <Python.h>\n#include <vector>\nint main() { return std::vector<int>(1).front(); }\n"
_NO_COMPILER = "apt-get install g++ python3-dev (or your system's), or leave trainer.compile=off"


def torch_facts() -> tuple[dict[str, Any], str]:
    """What torch says about the machine, asked in another process; empty with the reason where it does not load."""
    facts, error = ask(_TORCH)
    return facts or {}, error


def torch_check(facts: dict[str, Any], error: str) -> Check:
    """Whether torch loads."""
    if not facts:
        return Check("torch loads", "fail", f"torch cannot be imported: {error}", "install torch again")
    return Check("torch loads", "ok", f"{facts['torch']} with {facts['capability']} kernels", "", facts)


def cpu_check(cpuinfo: Path = Path("/proc/cpuinfo"), machine: str | None = None) -> Check:
    """The processor and the features that decide speed.

    Args:
        cpuinfo: Linux's description of it.
        machine: architecture; None asks the system.
    """
    try:
        lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    facts = dict([word.strip() for word in line.split(":", 1)] for line in lines if ":" in line)
    flags = set((facts.get("flags") or facts.get("Features") or "").split())
    model = facts.get("model name") or platform.processor() or platform.machine()
    found = {feature: bool(flags & set(names)) for feature, names in _FEATURES.items()}
    details: dict[str, Any] = {"model": model, "features": found if flags else None}
    if not flags:
        return Check("cpu", "ok", f"{model}; its features cannot be told on this system", "", details)
    shown = ", ".join(f"{feature} {'yes' if there else 'no'}" for feature, there in found.items())
    if (machine or platform.machine()) in ("x86_64", "AMD64") and not found["avx2"]:
        return Check("cpu", "warn", f"{model}: {shown}", "without AVX2 everything is several times slower", details)
    return Check("cpu", "ok", f"{model}: {shown}", "", details)


def threads_check(facts: dict[str, Any], cgroup: Path = Path("/sys/fs/cgroup")) -> Check:
    """Threads that torch takes against processors that it may use.

    Args:
        facts: of :func:`torch_facts`.
        cgroup: where Linux says how much processor time a container has.
    """
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = _quota(cgroup)
    threads = facts.get("threads")
    variables = {name: os.environ[name] for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS") if name in os.environ}
    details = {"processors": allowed, "quota": quota, "torch_threads": threads, "environment": variables}
    line = f"{allowed} processors" + (f", {quota:g} of them by quota" if quota is not None else "")
    line += f", torch takes {threads} threads" if threads else ""
    line += "".join(f", {name}={value}" for name, value in variables.items())
    most = max(1, round(min(allowed, quota or allowed)))
    if threads and threads > most:
        hint = f"set trainer.threads={most}: more threads than processors slow each other down"
        return Check("threads", "warn", line, hint, details)
    return Check("threads", "ok", line, "", details)


def gpu_check(facts: dict[str, Any], nvidia: bool | None = None) -> Check:
    """GPUs, and whether torch was built for them.

    Args:
        facts: of :func:`torch_facts`.
        nvidia: whether there is an NVIDIA driver; None looks.
    """
    gpus = facts.get("gpus") or []
    details = {"gpus": gpus, "cuda": facts.get("cuda"), "mps": facts.get("mps")}
    if gpus:
        shown = ", ".join(f"{gpu['name']} ({gpu['memory'] / 2**30:.0f} GiB)" for gpu in gpus)
        return Check("gpu", "ok", f"{shown}, CUDA {facts['cuda']}", "", details)
    if Path("/dev/nvidiactl").exists() if nvidia is None else nvidia:
        build = "is a build without CUDA" if not facts.get("cuda") else "cannot use it"
        hint = "install a build of torch for your driver's CUDA version"
        return Check("gpu", "warn", f"there is an NVIDIA GPU, but torch {build}", hint, details)
    return Check(
        "gpu", "ok", "Apple GPU" if facts.get("mps") else "none; everything runs on the processor", "", details
    )


def compiler_check(command: str | None = None) -> Check:
    """Whether ``trainer.compile`` has a C++ compiler and Python's headers: a small program is compiled.

    Args:
        command: the compiler; None takes ``$CXX``, or what torch takes.
    """
    name = "compiler"
    command = command or os.environ.get("CXX") or ("clang++" if platform.system() == "Darwin" else "g++")
    path = shutil.which(command)
    details = {"command": command, "path": path}
    if path is None:
        return Check(name, "warn", f"no C++ compiler ({command}): compiling is not possible", _NO_COMPILER, details)
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "program.cpp"
        source.write_text(_PROGRAM)
        include = f"-I{sysconfig.get_path('include')}"
        words = [path, include, "-c", str(source), "-o", f"{folder}/program.o"]
        try:
            done = subprocess.run(words, capture_output=True, text=True, errors="replace", timeout=120, check=False)
            error = "" if done.returncode == 0 else _first_error(done.stderr) or f"code {done.returncode}"
        except (OSError, subprocess.TimeoutExpired) as trouble:
            error = str(trouble)
    if error:
        return Check(name, "warn", f"{path} does not work: {error}", _NO_COMPILER, details)
    return Check(name, "ok", f"{path} compiles against Python's headers", "", details)


def _first_error(text: str) -> str:
    return next((line.strip() for line in text.splitlines() if "error" in line), text.strip().partition("\n")[0])


def _quota(cgroup: Path) -> float | None:
    """Processors' worth of time that a container may use, of both versions of control groups."""
    try:
        share, period = (cgroup / "cpu.max").read_text().split()
        return None if share == "max" else int(share) / int(period)
    except (OSError, ValueError):
        pass
    try:
        share = (cgroup / "cpu" / "cpu.cfs_quota_us").read_text()
        period = (cgroup / "cpu" / "cpu.cfs_period_us").read_text()
        return int(share) / int(period) if int(share) > 0 else None
    except (OSError, ValueError):
        return None
