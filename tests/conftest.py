"""Test processes share the cores: one thread each, in every process that a test starts as well."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
