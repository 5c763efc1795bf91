"""Counted in page faults, which do not depend on what else the machine does."""

import subprocess
import sys

import pytest

ROUNDS = """
import resource, sys, torch
from bigopt.train.allocator import keep_freed_memory
told = keep_freed_memory() if sys.argv[1] == "keep" else False
def step():
    activations = [torch.ones(4 << 20) for _ in range(10)]  # 160 MB, all freed at the end
step(), step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
    step()
print(int(told), resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(how, **environment):
    import os

    done = subprocess.run(
        [sys.executable, "-c", ROUNDS, how],
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        check=True,
        capture_output=True,
        text=True,
    )
    told, count = done.stdout.split()
    return told == "1", int(count)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's allocator")
def test_a_step_takes_its_memory_from_the_one_before():
    told, kept = faults("keep")
    assert told
    assert kept < faults("leave")[1] / 10


def test_an_allocator_that_the_user_chose_is_left_alone():
    assert not faults("keep", MALLOC_TRIM_THRESHOLD_="131072")[0]
