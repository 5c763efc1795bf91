"""What the processor at hand can multiply."""

from __future__ import annotations

from pathlib import Path


def saturates() -> bool:
    """Whether this x86 processor multiplies 8-bit integers through 16-bit sums that overflow (no VNNI)."""
    info = Path("/proc/cpuinfo")
    text = info.read_text() if info.exists() else ""
    return "avx2" in text and "vnni" not in text
