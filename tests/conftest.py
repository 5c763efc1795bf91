"""Test processes share the cores: one thread each, in every process that a test starts as well."""

import os
import signal

os.environ.setdefault("OMP_NUM_THREADS", "1")
signal.signal(signal.SIGINT, signal.default_int_handler)  # whoever starts tests in the background has it ignored
