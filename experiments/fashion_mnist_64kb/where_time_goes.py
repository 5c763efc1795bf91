"""Where a running training spends its time, by py-spy; adds a table to where_time_goes.md.

pip install py-spy
bigopt experiment=fashion_mnist_64kb &
python experiments/fashion_mnist_64kb/where_time_goes.py $! "recovery after pruning"     # a minute; asks for root
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

HERE = Path(__file__).parent
SECONDS, RATE = 60, 40
KINDS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("the large net's answers", ("vocabulary/answers",)),
    ("validation", ("validate (bigopt", "predict (bigopt")),
    ("checkpoints", ("keeper.py", "checkpoint.py")),
    ("rounding to integers", ("_lsq.py",)),
    ("the net, forward and backward", ("_forward (bigopt/train", "CompiledFunction", "Runner.call", "backward (torch")),
    ("optimizer", ("adamw.py", "adam.py", "optimizer.py")),
    ("augmented copies, batches", ("_copies.py", "batches.py", "data.py")),
)
"""What a stack belongs to, by the first kind with a word in it; the rest is Lightning's and bigopt's loop."""


def kind(stack: str) -> str | None:
    """None for a thread that waits."""
    if "wait (threading" in stack.rpartition(";")[2]:
        return None
    return next((name for name, words in KINDS if any(word in stack for word in words)), "loop, losses, logging")


def main() -> None:
    pid, stage = sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else "training"
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "stacks"
        words = ["py-spy", "record", "-p", pid, "-d", str(SECONDS), "-r", str(RATE), "-f", "raw", "-o", str(file)]
        subprocess.run(words, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        counts: Counter[str] = Counter()
        for line in file.read_text().splitlines():
            stack, _, samples = line.rpartition(" ")
            if (name := kind(stack)) is not None:
                counts[name] += int(samples)
    total = sum(counts.values())
    rows = [f"| {name} | {100 * count / total:.1f}% |" for name, count in counts.most_common()]
    text = "\n".join([f"| {stage} | share of the time |", "|---|---|", *rows, "", ""])
    print(text)
    with (HERE / "where_time_goes.md").open("a") as out:
        out.write(text)


if __name__ == "__main__":
    main()
