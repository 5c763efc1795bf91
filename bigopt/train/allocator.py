"""Memory that one training step frees stays with the process for the next one."""

from __future__ import annotations

import ctypes
import os
import sys
from functools import cache

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3  # glibc's M_TRIM_THRESHOLD and M_MMAP_THRESHOLD (malloc.h)
LARGEST_BLOCK = 32 << 20  # bytes; more is refused
KEPT = 1 << 30  # bytes of freed memory at most that are not given back to the system
CHOSEN = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES", "LD_PRELOAD")


@cache
def keep_freed_memory() -> bool:
    """Tells glibc's allocator not to return activations to the system after each step.

    It does otherwise, for blocks of a batch's size, and the system zeroes every page again in the next step: a fifth
    of the time of narrow convolutional nets. Does nothing where the environment already chose an allocator.

    Returns:
        whether the allocator was told.
    """
    if not sys.platform.startswith("linux") or any(os.environ.get(name) for name in CHOSEN):
        return False
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):  # another C library
        return False
    return bool(mallopt(MMAP_THRESHOLD, LARGEST_BLOCK)) and bool(mallopt(TRIM_THRESHOLD, KEPT))
