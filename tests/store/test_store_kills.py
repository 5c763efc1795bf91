"""SIGKILL at 50 moments of each writer, half of them aimed at the commit: always a complete old or new version."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from store_writers import WRITERS

KILLS = 50
LOOP = Path(__file__).with_name("store_kill_loop.py")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("name", sorted(WRITERS))
def test_killed_writer_leaves_a_complete_version(name, tmp_path):
    done = subprocess.run(
        [sys.executable, str(LOOP), name, str(tmp_path), str(KILLS), "0"],
        capture_output=True,
        text=True,
        timeout=120,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    kills, versions, orphans = (int(word) for word in done.stdout.split() if word.isdecimal())
    assert kills == KILLS and versions >= KILLS // 2
    if name != "journal":
        assert orphans >= 5  # the kills did hit writes in progress
