"""What a run ran on, as far as it decides its figures."""

from __future__ import annotations

import os
import platform
from functools import cache
from importlib import metadata
from typing import Any

_PACKAGES = (
    "bigopt",
    "torch",
    "pytorch-lightning",
    "torchao",
    "torch-pruning",
    "onnx",
    "onnxruntime",
    "mlflow",
    "optuna",
)
_FEATURES = (
    "avx2",
    "avx512f",
    "avx512_vnni",
    "avx_vnni",
    "avx512_bf16",
    "amx_int8",
    "amx_bf16",
    "asimd",
    "asimddp",
    "i8mm",
)


def environment(threads: int | None = None, **more: Any) -> dict[str, Any]:
    """Versions and hardware, without importing what it names.

    Args:
        threads: ONNX Runtime's threads while latency is measured.
        more: what only the caller knows (training threads, precision, accelerator).
    """
    versions = {name.replace("-", "_"): _version(name) for name in _PACKAGES}
    model, flags = _cpu()
    return {
        **versions,
        "python": platform.python_version(),
        "platform": platform.platform(terse=True),
        "cpu": model,
        "cpu_features": [name for name in _FEATURES if name in flags],
        "cpus": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "threads": threads,
        **more,
    }


@cache
def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _cpu() -> tuple[str, set[str]]:
    """The processor's name and its feature flags; Linux tells both, elsewhere only the name is known."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
            facts = dict(part for line in file if len(part := [word.strip() for word in line.split(":", 1)]) == 2)
    except OSError:
        facts = {}
    flags = facts.get("flags") or facts.get("Features") or ""
    return facts.get("model name") or platform.processor() or platform.machine(), set(flags.split())
