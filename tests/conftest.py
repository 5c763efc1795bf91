"""Test processes share the cores: one thread each, in every process that a test starts as well."""

import os
import signal

import pytest

LONG = ("end_to_end", "train", "tracking", "search")
"""Folders with long tests, which come first so that no core waits for them at the end."""

os.environ.setdefault("OMP_NUM_THREADS", "1")
signal.signal(signal.SIGINT, signal.default_int_handler)  # whoever starts tests in the background has it ignored


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long tests first, otherwise in order."""
    items.sort(key=lambda item: not any(part in LONG for part in item.path.parts[-2:-1]))
